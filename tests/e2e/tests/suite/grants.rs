//! A function reaches what it was granted, and nothing else.

use anyhow::Result;
use tombolo_e2e::{App, Origin, Server};

#[tokio::test]
async fn outgoing_http_is_refused_before_a_connection_is_made() -> Result<()> {
    let origin = Origin::start()?;
    let address = origin.address();
    let elsewhere = format!("http://127.0.0.1:{}", address.port().wrapping_add(1).max(1));
    for grants in [
        vec![],
        vec!["--grant-http", &elsewhere],
        // Any public host: loopback is none.
        vec!["--grant-http", "*"],
    ] {
        let server = Server::serve("http-kitchen", &grants)?;
        let path = format!("/fetch?url=http://{address}/");
        let answer = server.client().get(&path).await?;
        assert!(answer.text().starts_with("error "), "{}", answer.text());
        // Whoever looks at the function's log learns why.
        server.wait_for_log("an outgoing request was refused")?;
    }
    assert_eq!(origin.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn a_granted_origin_is_reached() -> Result<()> {
    let origin = Origin::start()?;
    let url = format!("http://{}", origin.address());
    let server = Server::serve("http-kitchen", &["--grant-http", &url])?;
    let answer = server.client().get(&format!("/fetch?url={url}/")).await?;
    assert_eq!(answer.text(), "200 hello from outside");
    assert_eq!(origin.connections(), 1);
    Ok(())
}

#[tokio::test]
async fn a_manifest_grants_as_the_command_line_does() -> Result<()> {
    let origin = Origin::start()?;
    let url = format!("http://{}", origin.address());
    let app = App::new("http-kitchen", &format!("grants = {{ http = [{url:?}] }}"))?;
    let server = app.up()?;
    let answer = server.client().get(&format!("/fetch?url={url}/")).await?;
    assert_eq!(answer.text(), "200 hello from outside");
    Ok(())
}

#[tokio::test]
async fn sockets_are_refused_without_a_grant() -> Result<()> {
    let origin = Origin::start()?;
    let path = format!("/?address={}", origin.address());
    let server = Server::serve("sockets-probe", &[])?;
    let answer = server.client().get(&path).await?;
    assert!(answer.text().starts_with("refused"), "{}", answer.text());
    assert_eq!(origin.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn a_granted_endpoint_is_reached_and_no_other() -> Result<()> {
    let (granted, other) = (Origin::start()?, Origin::start()?);
    let address = granted.address().to_string();
    let server = Server::serve("sockets-probe", &["--grant-sockets", &address])?;
    let client = server.client();
    let answer = client.get(&format!("/?address={address}")).await?;
    assert_eq!(answer.text(), "reached");
    let answer = client
        .get(&format!("/?address={}", other.address()))
        .await?;
    assert!(answer.text().starts_with("refused"), "{}", answer.text());
    assert_eq!(other.connections(), 0);
    let server = Server::serve("sockets-probe", &["--grant-sockets", "*"])?;
    let answer = server.client().get(&format!("/?address={address}")).await?;
    assert_eq!(answer.text(), "reached");
    Ok(())
}

#[tokio::test]
async fn the_environment_is_what_was_given() -> Result<()> {
    let server = Server::serve("http-kitchen", &[])?;
    assert_eq!(server.client().get("/env").await?.text(), "{}");
    let server = Server::serve("http-kitchen", &["--env", "CITY=Portland"])?;
    let answer = server.client().get("/env").await?;
    assert_eq!(answer.text(), r#"{"CITY":"Portland"}"#);
    Ok(())
}

#[tokio::test]
async fn config_is_read_by_both_versions_of_the_interface() -> Result<()> {
    let app = App::new("http-kitchen", r#"config = { horizon = "90s" }"#)?;
    let server = app.up()?;
    let client = server.client();
    assert_eq!(client.get("/config?key=horizon").await?.text(), "90s");
    let draft = client.get("/config?key=horizon&version=draft").await?;
    assert_eq!(draft.text(), "90s");
    assert_eq!(client.get("/config?key=absent").await?.status, 404);
    Ok(())
}
