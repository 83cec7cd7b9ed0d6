//! What holds for every input: reading never panics, and texts survive being read and written.

use std::net::IpAddr;

use proptest::prelude::*;
use tombolo_manifest::{
    DirectoryGrant, HttpGrant, Manifest, NodeConfig, Route, SocketGrant, format_size, parse_size,
};

/// Pieces of manifests, put together at random: deeper than random text gets.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("[app]\n".to_owned()),
        Just("name = \"a\"\n".to_owned()),
        Just("version = \"1.0.0\"\n".to_owned()),
        Just("[functions.f]\n".to_owned()),
        Just("component = \"f.wasm\"\n".to_owned()),
        Just("[[triggers.http]]\n".to_owned()),
        Just("[http]\n".to_owned()),
        Just("[queues.q]\n".to_owned()),
        "\\[\\[triggers\\.(cron|queue|mqtt|change)\\]\\]\n",
        "(schedule|timezone|topic|queue|order_by) = \"[^\"]{0,12}\"\n",
        "schedule = \"([*0-9L/,#W-]{1,4} ){4,5}[*0-9L/,#W+-]{1,4}\"\n",
        Just("\u{feff}\t\"é\" = ".to_owned()),
        "(limits|grants|env|tls|listen) = [{\\[]{1,3}[a-z]{1,5} = \"[^\"]{0,9}\"[}\\]]{0,3}\r?\n",
        "(route|function|static|isolation|sample_ratio) = (\"[^\"]{0,12}\"|-?[0-9.]{1,25}|nan|true)\n",
        "\\PC{0,12}",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn look_at(text: &str) {
    for problems in [
        Manifest::parse(text, "tombolo.toml").err(),
        NodeConfig::parse(text, "node.toml").err(),
    ]
    .into_iter()
    .flatten()
    {
        assert!(problems.iter().count() > 0);
        for problem in &problems {
            let shown = problem.source_line.chars().count();
            assert!(problem.line >= 1 && problem.column >= 1 && problem.width >= 1);
            assert!(problem.indent <= shown);
            assert!(problem.indent + problem.width <= shown.max(problem.indent + 1));
        }
        let rendered = problems.to_string();
        assert!(
            !rendered
                .chars()
                .any(|c| c.is_control() && c != '\n' && c != '\t')
        );
    }
}

proptest! {
    #[test]
    fn reading_any_text_never_panics(text in any::<String>()) {
        look_at(&text);
    }

    #[test]
    fn reading_pieces_of_manifests_never_panics(text in pieces()) {
        look_at(&text);
    }

    #[test]
    fn sizes_round_trip(bytes in any::<u64>(), shift in 0_u32..40) {
        let bytes = (bytes >> shift) << shift;
        prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
    }

    #[test]
    fn any_text_that_is_a_size_or_a_grant_is_written_as_it_means(text in "[0-9a-zA-Z:/.*{}\\[\\]_-]{0,24}") {
        if let Ok(size) = parse_size(&text) {
            prop_assert_eq!(parse_size(&format_size(size)), Ok(size));
        }
        if let Ok(grant) = text.parse::<SocketGrant>() {
            prop_assert_eq!(grant.to_string().parse::<SocketGrant>(), Ok(grant));
        }
        if let Ok(grant) = text.parse::<DirectoryGrant>() {
            prop_assert_eq!(grant.to_string().parse::<DirectoryGrant>(), Ok(grant));
        }
    }

    #[test]
    fn routes_round_trip(text in "(/[a-z.~@]{1,4}|/\\{[a-z]{1,3}\\}){0,5}(/|/\\{\\*[a-z]{1,3}\\})?") {
        if let Ok(route) = text.parse::<Route>() {
            prop_assert_eq!(route.to_string(), text);
            prop_assert_eq!(route.to_string().parse::<Route>(), Ok(route));
        }
    }

    #[test]
    fn origins_round_trip(
        scheme in "https?",
        host in "([*][.])?([A-Za-z][a-z0-9-]{0,5}[.]){0,3}[a-z]{2,4}",
        port in 1_u16..,
    ) {
        let grant: HttpGrant = format!("{scheme}://{host}:{port}").parse().unwrap();
        prop_assert_eq!(grant.to_string().parse::<HttpGrant>(), Ok(grant));
    }

    #[test]
    fn a_grant_of_an_address_allows_only_that_address(granted in any::<IpAddr>(), other in any::<IpAddr>()) {
        let bracketed = match granted {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let grant: HttpGrant = format!("http://{bracketed}").parse().unwrap();
        prop_assert!(grant.allows("http", &granted.to_string(), 80));
        prop_assert_eq!(grant.allows("http", &other.to_string(), 80), granted == other);
        prop_assert_eq!(grant.to_string().parse::<HttpGrant>(), Ok(grant));
    }
}
