//! A server before 3.6: a real one, behind what makes it not know watches that stay.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
};

use super::*;

/// `addWatch` of ZooKeeper's protocol.
const ADD_WATCH: u32 = 106;

/// A frame with its length before it; a request's second word is its type.
async fn ask_without_add_watch(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
    let answering = async move { copy(&mut answers, &mut back).await.map(drop) };
    let asking = async move {
        loop {
            let length = from.read_u32().await?;
            let mut frame = vec![0; length as usize];
            from.read_exact(&mut frame).await?;
            if frame.len() >= 8 && frame[4..8] == ADD_WATCH.to_be_bytes() {
                frame[4..8].copy_from_slice(&999u32.to_be_bytes());
            }
            to.write_u32(length).await?;
            to.write_all(&frame).await?;
        }
    };
    tokio::select! {
        ended = answering => ended,
        ended = asking => ended,
    }
}

#[tokio::test]
async fn a_server_without_watches_that_stay_is_followed_by_those_that_fire_once() {
    let Some(real) = shared() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let old = listener.local_addr().unwrap().to_string();
    let member = real.members()[0].clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&member).await.unwrap();
            tokio::spawn(ask_without_add_watch(client, server));
        }
    });
    let zookeeper = ZooKeeper::builder([old]).root("/old").session(Duration::from_secs(5)).build().unwrap();
    let mut watch = zookeeper.watch(&service());
    until(&mut watch, &[]).await;
    let client = by_hand(&real).await;
    put(&client, "/old/s/a", &instance("a").to_json()).await;
    until(&mut watch, &["a"]).await;
    put(&client, "/old/s/b", &instance("b").to_json()).await;
    until(&mut watch, &["a", "b"]).await;
    client.set_data("/old/s/b", instance("c").to_json().as_bytes(), None).await.unwrap();
    until(&mut watch, &["a", "c"]).await;
    client.delete("/old/s/a", None).await.unwrap();
    until(&mut watch, &["c"]).await;
}
