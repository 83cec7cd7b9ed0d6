// The report page's style sheet, light and dark.
export const STYLE = `
:root{--page:#f6f5f2;--card:#fff;--ink:#1d1f22;--soft:#6a6e73;--line:#e4e2dc;--green:#2e9e6b;--rest:#c9ccd1;--yellow:#e5b53a;--red:#d0574b;
--one:#3b76c4;--two:#2a9d8f;--three:#d98324;--four:#8358b3;--five:#c2517f;--six:#5d7f2b;--seven:#3a95b8;--eight:#8c6d4f}
@media (prefers-color-scheme:dark){:root{--page:#15171a;--card:#1e2125;--ink:#eceef0;--soft:#9aa0a6;--line:#33373d;--green:#43b581;--rest:#565c64;--yellow:#e0b84c;--red:#e07065;
--one:#6ba3e8;--two:#4fc1b2;--three:#eba04d;--four:#ab85d8;--five:#e07fa6;--six:#94b85c;--seven:#66bbdb;--eight:#b8977a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 18px 56px}
header{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 16px;margin-bottom:18px}
h1{font-size:28px;letter-spacing:-.02em;margin:0}
header p{margin:0;color:var(--soft)}
h2{font-size:17px;margin:30px 0 12px}
h3{font-size:14px;margin:0 0 8px}
h2 .key,h3 .key{margin-left:6px}
.key{font-size:12px;font-weight:400;color:var(--soft)}
.key b{font-weight:400;white-space:nowrap}
.key i{display:inline-block;width:10px;height:10px;border-radius:3px;margin:0 5px 0 8px}
.grid{display:grid;gap:14px;grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr))}
.grid+.grid{margin-top:14px}
.card,.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px}
.tiles{display:grid;gap:12px;grid-template-columns:repeat(auto-fit,minmax(170px,1fr))}
.tile span,.tile small{display:block;color:var(--soft);font-size:13px}
.tile b{display:block;font-size:30px;line-height:1.2;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
svg{display:block;width:100%;height:auto;overflow:visible}
.tick,.note{font-size:11px;fill:var(--soft);font-variant-numeric:tabular-nums}
.note{fill:var(--ink)}
.grid line.grid,line.grid{stroke:var(--line)}
line.axis{stroke:var(--soft)}
.row{display:flex;align-items:center;gap:12px;margin:9px 0}
.row>span{flex:0 0 62px;font-size:13px;color:var(--soft)}
.bar{display:flex;flex:1;gap:2px;height:26px;border-radius:6px;overflow:hidden}
.bar span{display:flex;align-items:center;justify-content:center;min-width:3px;font-size:12px;font-weight:600;color:#fff;text-shadow:0 0 3px #0007;white-space:nowrap}
details{margin-top:26px}
summary{cursor:pointer;font-weight:600}
.scroll{overflow-x:auto;margin-top:10px}
table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:5px 10px;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600}
.empty{color:var(--soft);padding:40px 0;text-align:center}
@media print{.card,.tile{break-inside:avoid}}
`;
