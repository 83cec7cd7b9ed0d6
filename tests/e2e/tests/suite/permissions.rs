//! Clients of the broker that try to get around its rules, by topics, filters, wills and names: none gets anywhere.

use anyhow::Result;
use tombolo_e2e::{App, Device, Hello, Message, Reply};

use crate::mqtt::{Node, PASSWORD, TAKES, app};

/// Forbidden by the rules (MQTT 5, 3.4.2.1).
const FORBIDDEN: Reply = Reply::Code(0x87);
const DONE: Reply = Reply::Code(0);

/// Topics that are not below `machines/press`, or that are no topics at all.
const TOPICS: &[&[u8]] = &[
    b"machines",
    b"machines/",
    b"machines/other/x",
    b"machines/press2/x",
    b"machines/pres",
    b"machines//press/x",
    b"/machines/press/x",
    b"Machines/press/x",
    b"machines/PRESS/x",
    b" machines/press/x",
    b"machines /press/x",
    b"machines%2Fpress%2Fx",
    b"machines/%70ress/x",
    b"machines\\press\\x",
    b"machines/./press/x",
    b"machines/other/../press/x",
    // What looks like it: Cyrillic letters, other slashes, marks that are not seen.
    "m\u{430}chines/press/x".as_bytes(),
    "machines/pr\u{435}ss/x".as_bytes(),
    "machines\u{2215}press\u{2215}x".as_bytes(),
    "machines\u{ff0f}press\u{ff0f}x".as_bytes(),
    "machines/press\u{200b}/x".as_bytes(),
    "\u{feff}machines/press/x".as_bytes(),
    "\u{202e}machines/press/x".as_bytes(),
    // Wildcards are for filters.
    b"#",
    b"+",
    b"machines/#",
    b"machines/+/x",
    b"machines/press/#",
    b"machines/press/+",
    b"machines/press/a+b",
    // The broker's own names.
    b"$SYS/broker",
    b"$machines/press/x",
    b"$share/group/machines/press/x",
    b"$share//machines/press/x",
    // Control characters.
    b"machines/press/\0",
    b"machines/press\0/x",
    b"machines/press/\x01",
    b"machines/press/x\n",
    b"machines/press/\x7f",
    "machines/press/\u{85}".as_bytes(),
    // No UTF-8: slashes that are longer than they should be, a surrogate, too much and too little.
    b"machines/press/\xc0\xaf",
    b"machines\xc0\xafpress\xc0\xafx",
    b"machines/press/\xe0\x80\xaf",
    b"machines/press/\xf0\x80\x80\xaf",
    b"machines/press/\xed\xa0\x80",
    b"machines/press/\xff",
    b"machines/press/\xe2\x82",
    b"",
];

/// Filters that select more than `public/+` does, or that are none.
const FILTERS: &[&[u8]] = &[
    b"#",
    b"+",
    b"+/+",
    b"+/#",
    b"/#",
    b"public",
    b"public/#",
    b"public/+/+",
    b"public/news/#",
    b"public//+",
    b"/public/+",
    b"Public/+",
    b"+/plan",
    b"secret/plan",
    b"secret/+",
    "publi\u{441}/+".as_bytes(),
    "public\u{200b}/+".as_bytes(),
    // By way of a group.
    b"$share/group/#",
    b"$share/group/+/+",
    b"$share/group/secret/plan",
    b"$share/group/public/#",
    b"$share/public/+",
    b"$share//public/+",
    b"$share/+/public/news",
    b"$share/#/public/news",
    b"$share/group",
    b"$share/group/$share/group/#",
    b"$share/public/news/secret/plan",
    b"$SHARE/group/public/news",
    b"$SYS/#",
    b"$queue/public/news",
    // No filters.
    b"public/+#",
    b"public/#/news",
    b"public/\0",
    b"public/\x1b",
    b"public/\xc0\xaf",
    b"public\xc0\xaf+",
    b"",
];

/// An app that gets whatever is published, and a node whose rules let users do little. The auditor may do everything.
fn ruled() -> Result<(App, Node, u16)> {
    let trigger = "\n[[triggers.mqtt]]\ntopic = \"#\"\nfunction = \"main\"\n";
    let app = app(TAKES, "", trigger)?;
    let users = ["auditor", "press", "spy", "p\u{e9}age"]
        .map(|name| format!("[[mqtt.users]]\nname = \"{name}\"\npassword = \"{PASSWORD}\"\n"));
    let rules = "[[mqtt.rules]]\nuser = \"auditor\"\ntopics = \"#\"\npublish = true\nsubscribe = true\n\
         [[mqtt.rules]]\nuser = \"press\"\ntopics = \"machines/{user}/#\"\npublish = true\n\
         [[mqtt.rules]]\nuser = \"p\u{e9}age\"\ntopics = \"gates/{user}/#\"\npublish = true\n\
         [[mqtt.rules]]\nuser = \"spy\"\ntopics = \"public/+\"\nsubscribe = true\n\
         [[mqtt.rules]]\nuser = \"spy\"\ntopics = \"devices/{client}/#\"\npublish = true\n";
    std::fs::write(app.folder().join("node.toml"), users.concat() + rules)?;
    let node = Node::up(&app)?;
    let port = node.port.parse()?;
    Ok((app, node, port))
}

fn user(name: &str) -> Hello<'_> {
    Hello {
        client: name.as_bytes(),
        user: Some(name.as_bytes()),
        ..Hello::default()
    }
}

/// Somebody who hears everything.
async fn auditor(port: u16) -> Result<Device> {
    let mut auditor = Device::connect(port, user("auditor")).await?;
    assert_eq!(auditor.subscribe(b"#").await?, Reply::Code(1));
    Ok(auditor)
}

/// Publishes something that is allowed: it has to be the first that the auditor hears and that the function gets.
async fn nothing_came(app: &App, port: u16, auditor: &mut Device) -> Result<()> {
    let topic = "machines/press/last";
    let mut press = Device::connect(port, user("press")).await?;
    assert_eq!(press.publish(topic.as_bytes(), b"1", false).await?, DONE);
    let heard = auditor.message().await?;
    assert_eq!(heard.topic, topic);
    let queue = app.api()?.queue("main.mqtt").await?;
    assert_eq!(queue["counters"]["published"], 1, "{queue:#}");
    Ok(())
}

#[tokio::test]
async fn a_topic_that_no_rule_allows_reaches_nobody_however_it_is_written() -> Result<()> {
    let (app, _node, port) = ruled()?;
    let mut auditor = auditor(port).await?;
    let long = [b"machines/press/", "x".repeat(2000).as_bytes()].concat();
    let deep = [b"machines/press", "/".repeat(100).as_bytes()].concat();
    let mut forbidden = 0;
    for topic in TOPICS.iter().copied().chain([&long[..], &deep]) {
        let shown = String::from_utf8_lossy(topic);
        for old in [false, true] {
            let hello = Hello {
                old,
                ..user("press")
            };
            let mut press = Device::connect(port, hello).await?;
            let reply = press.publish(topic, b"x", true).await?;
            // MQTT 3.1.1 has no answer that says no.
            let refused = if old { DONE } else { FORBIDDEN };
            assert!(reply == refused || reply.is_refusal(), "{shown}: {reply:?}");
            forbidden += u32::from(reply == refused);
        }
    }
    let api = app.api()?;
    let counted = api.metric("tombolo_mqtt_refused_total{reason=\"forbidden\"}");
    assert_eq!(counted.await?, f64::from(forbidden));
    assert_eq!(api.metric("tombolo_mqtt_retained").await?, 0.0);
    nothing_came(&app, port, &mut auditor).await
}

#[tokio::test]
async fn an_alias_does_not_carry_a_topic_past_the_rules() -> Result<()> {
    let (app, _node, port) = ruled()?;
    let mut auditor = auditor(port).await?;
    let mut press = Device::connect(port, user("press")).await?;
    for topic in [&b"machines/other/x"[..], b""] {
        let reply = press.publish_alias(topic, 1).await?;
        assert!(reply.is_refusal(), "{topic:?}: {reply:?}");
    }
    let mut press = Device::connect(port, user("press")).await?;
    let unknown = press.publish_alias(b"", 2).await?;
    assert!(unknown.is_refusal(), "{unknown:?}");
    nothing_came(&app, port, &mut auditor).await
}

#[tokio::test]
async fn names_that_look_alike_or_have_wildcards_are_nobodys() -> Result<()> {
    let (app, _node, port) = ruled()?;
    let mut auditor = auditor(port).await?;
    for name in [
        "Press",
        "press ",
        "pr\u{435}ss",
        "press\0",
        "press/x",
        "pe\u{301}age",
        "+",
        "#",
        "",
    ] {
        let refused = Device::try_connect(port, user(name)).await?;
        assert!(refused.is_err(), "{name:?}");
    }
    let mut toll = Device::connect(port, user("p\u{e9}age")).await?;
    let alike = "gates/pe\u{301}age/x".as_bytes();
    assert_eq!(toll.publish(alike, b"x", false).await?, FORBIDDEN);
    for client in ["+", "#", "a/b", "$SYS", "{client}", "a/#"] {
        let client = client.as_bytes();
        let hello = Hello {
            client,
            ..user("spy")
        };
        let Ok(mut spy) = Device::try_connect(port, hello).await? else {
            continue;
        };
        for topic in [&b"devices/a/b"[..], b"devices//b", b"devices/{client}/b"] {
            assert_eq!(spy.publish(topic, b"x", false).await?, FORBIDDEN);
        }
    }
    nothing_came(&app, port, &mut auditor).await
}

#[tokio::test]
async fn a_wider_filter_than_the_rule_gets_nothing_retained_or_live() -> Result<()> {
    let (_app, _node, port) = ruled()?;
    let mut auditor = Device::connect(port, user("auditor")).await?;
    let topics = ["secret/plan", "public/a/b", "public", "public/news"];
    for topic in topics {
        assert_eq!(
            auditor.publish(topic.as_bytes(), b"kept", true).await?,
            DONE
        );
    }
    let mut spies = Vec::new();
    for filter in FILTERS {
        let shown = String::from_utf8_lossy(filter);
        for old in [false, true] {
            let client = format!("spy {shown} {old}");
            // Some of these have characters that are not for identifiers.
            let client = client.replace(char::is_control, "?");
            let client = client.as_bytes();
            let hello = Hello {
                old,
                client,
                ..user("spy")
            };
            let mut spy = Device::connect(port, hello).await?;
            let reply = spy.subscribe(filter).await?;
            assert!(reply.is_refusal(), "{shown}: {reply:?}");
            spies.push(spy);
        }
    }
    let mut spy = Device::connect(port, user("spy")).await?;
    assert_eq!(spy.subscribe(b"public/+").await?, Reply::Code(1));
    let news = |payload: &str| Message {
        topic: "public/news".into(),
        payload: payload.into(),
    };
    assert_eq!(spy.message().await?, news("kept"));
    let mut shared = Device::connect(
        port,
        Hello {
            client: b"shared",
            ..user("spy")
        },
    )
    .await?;
    assert_eq!(
        shared.subscribe(b"$share/group/public/+").await?,
        Reply::Code(1)
    );
    for topic in topics {
        assert_eq!(
            auditor.publish(topic.as_bytes(), b"live", false).await?,
            DONE
        );
    }
    assert_eq!(spy.message().await?, news("live"));
    assert_eq!(shared.message().await?, news("live"));
    for spy in spies.iter_mut().chain([&mut spy, &mut shared]) {
        assert_eq!(spy.settled().await?, []);
    }
    Ok(())
}

#[tokio::test]
async fn a_will_to_a_topic_that_no_rule_allows_is_nobodys() -> Result<()> {
    let (app, _node, port) = ruled()?;
    let mut auditor = auditor(port).await?;
    for topic in TOPICS {
        let shown = String::from_utf8_lossy(topic);
        for old in [false, true] {
            let will = Some(*topic);
            let hello = Hello {
                old,
                will,
                ..user("press")
            };
            let refused = Device::try_connect(port, hello).await?;
            assert!(refused.is_err(), "{shown}");
        }
    }
    nothing_came(&app, port, &mut auditor).await?;
    let will = Some(&b"machines/press/gone"[..]);
    drop(
        Device::connect(
            port,
            Hello {
                will,
                ..user("press")
            },
        )
        .await?,
    );
    assert_eq!(auditor.message().await?.topic, "machines/press/gone");
    Ok(())
}
