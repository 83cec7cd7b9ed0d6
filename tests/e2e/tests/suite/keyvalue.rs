//! Key-value stores through every interface that reaches them, and what survives.

use anyhow::Result;
use tombolo_e2e::{App, Client};

const GRANT: &str = r#"grants = { keyvalue = ["default", "other"] }"#;

async fn text(client: Client, path: &str) -> Result<String> {
    Ok(client.get(path).await?.text())
}

/// What all the interfaces can do.
async fn assert_store_works(client: Client) -> Result<()> {
    assert_eq!(client.get("/get?store=default&key=a").await?.status, 404);
    let set = client.post("/set?store=default&key=a", "one").await?;
    assert_eq!((set.status.as_u16(), set.text()), (200, "done".to_owned()));
    client.post("/set?store=default&key=b", "two").await?;
    assert_eq!(text(client, "/get?store=default&key=a").await?, "one");
    assert_eq!(text(client, "/exists?store=default&key=a").await?, "true");
    assert_eq!(text(client, "/keys?store=default").await?, "a,b");
    assert_eq!(client.get("/get?store=other&key=a").await?.status, 404);
    assert_eq!(text(client, "/delete?store=default&key=a").await?, "done");
    assert_eq!(text(client, "/exists?store=default&key=a").await?, "false");
    let denied = client.get("/get?store=elsewhere&key=a").await?;
    assert_eq!(denied.status, 500, "{}", denied.text());
    Ok(())
}

#[tokio::test]
async fn every_interface_reaches_its_stores_and_no_other() -> Result<()> {
    for guest in ["kv-draft", "kv-draft2", "spin-sdk-5", "spin-sdk-7"] {
        let app = App::new(guest, GRANT)?;
        let server = app.up()?;
        assert_store_works(server.client()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn spin_components_read_variables() -> Result<()> {
    for guest in ["spin-sdk-5", "spin-sdk-7"] {
        let settings = format!("{GRANT}\nconfig = {{ greeting = \"ahoy\" }}");
        let app = App::new(guest, &settings)?;
        let server = app.up()?;
        let client = server.client();
        assert_eq!(
            text(client, "/variable?key=greeting").await?,
            "ahoy",
            "{guest}"
        );
        assert_eq!(client.get("/variable?key=absent").await?.status, 404);
    }
    Ok(())
}

#[tokio::test]
async fn increments_from_many_at_once_are_all_counted() -> Result<()> {
    for guest in ["kv-draft", "kv-draft2"] {
        let app = App::new(guest, GRANT)?;
        let server = app.up()?;
        let client = server.client();
        let increments: Vec<_> = (0..50)
            .map(|_| tokio::spawn(async move { text(client, "/increment?key=n&delta=2").await }))
            .collect();
        let mut seen = Vec::new();
        for increment in increments {
            seen.push(increment.await??.parse::<u32>()?);
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=50).map(|n| n * 2).collect::<Vec<_>>(), "{guest}");
    }
    Ok(())
}

#[tokio::test]
async fn batches_read_write_and_delete() -> Result<()> {
    for guest in ["kv-draft", "kv-draft2"] {
        let app = App::new(guest, GRANT)?;
        let server = app.up()?;
        let client = server.client();
        assert_eq!(text(client, "/set-many?keys=a,b").await?, "done");
        let many = text(client, "/get-many?keys=a,c,b").await?;
        let many: serde_json::Value = serde_json::from_str(&many)?;
        let expected = serde_json::json!({"a": "value of a", "b": "value of b", "c": null});
        assert_eq!(many, expected, "{guest}");
        assert_eq!(text(client, "/delete-many?keys=a,b").await?, "done");
        assert_eq!(text(client, "/keys").await?, "");
    }
    Ok(())
}

#[tokio::test]
async fn a_swap_happens_only_when_nobody_else_wrote() -> Result<()> {
    let app = App::new("kv-draft2", GRANT)?;
    let server = app.up()?;
    let client = server.client();
    assert_eq!(client.post("/swap?key=k", "first").await?.text(), "swapped");
    let second = client.post("/swap?key=k&expected=first", "second").await?;
    assert_eq!(second.text(), "swapped");
    let meddled = client.post("/swap?key=k&expected=second&meddle=mine", "third");
    assert_eq!(meddled.await?.text(), "changed to mine");
    assert_eq!(text(client, "/get?key=k").await?, "mine");
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() -> Result<()> {
    let app = App::new("kv-draft2", GRANT)?;
    let mut server = app.up()?;
    let client = server.client();
    let writes: Vec<_> = (0..40)
        .map(|n| {
            tokio::spawn(async move {
                let path = format!("/set?key=key-{n}");
                client.post(&path, format!("value {n}")).await
            })
        })
        .collect();
    for write in writes {
        assert_eq!(write.await??.text(), "done");
    }
    server.kill()?;
    let server = app.up()?;
    for n in 0..40 {
        let value = text(server.client(), &format!("/get?key=key-{n}")).await?;
        assert_eq!(value, format!("value {n}"));
    }
    Ok(())
}

#[tokio::test]
async fn the_stores_of_an_app_have_a_bound_that_deleting_makes_room_in() -> Result<()> {
    for guest in ["kv-draft", "kv-draft2", "spin-sdk-5", "spin-sdk-7"] {
        let app = App::new(guest, GRANT)?;
        let config = "[keyvalue]\napp_bytes_max = \"64KiB\"\n";
        std::fs::write(app.folder().join("node.toml"), config)?;
        let mut server = app.up()?;
        let value = "v".repeat(30 << 10);
        for store in ["default", "other"] {
            let path = format!("/set?store={store}&key=a");
            let set = server.client().post(&path, value.clone()).await?;
            assert_eq!(set.status, 200, "{guest}: {}", set.text());
        }
        let size = "tombolo_keyvalue_size_bytes{app=\"proof\"}";
        let bytes = app.api()?.metric(size).await?;
        assert!((61440.0..65536.0).contains(&bytes), "{guest}: {bytes}");
        // Counted again after a crash.
        server.kill()?;
        let server = app.up()?;
        assert_eq!(app.api()?.metric(size).await?, bytes, "{guest}");
        let client = server.client();
        let full = client
            .post("/set?store=default&key=b", value.clone())
            .await?;
        assert!(full.status.is_server_error(), "{guest}: {}", full.text());
        assert!(full.text().contains("are full"), "{guest}: {}", full.text());
        assert_eq!(text(client, "/exists?store=default&key=b").await?, "false");
        let smaller = client.post("/set?store=other&key=a", "v").await?;
        assert_eq!(smaller.status, 200, "{guest}: {}", smaller.text());
        let fits = client.post("/set?store=default&key=b", value).await?;
        assert_eq!(fits.status, 200, "{guest}: {}", fits.text());
    }
    Ok(())
}
