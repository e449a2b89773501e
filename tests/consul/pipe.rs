//! A pipe to an agent that notes what is asked through it, and when.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::Instant,
};

/// It ends, with what goes through it, when it is dropped.
pub(super) struct Pipe {
    address: String,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
    task: AbortHandle,
}

impl Pipe {
    pub(super) async fn to(agent: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, agent) = (listener.local_addr().unwrap().to_string(), agent.to_owned());
        let asked = Arc::<Mutex<Vec<_>>>::default();
        let task = tokio::spawn({
            let asked = asked.clone();
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((from, _)) = listener.accept().await {
                    connections.spawn(carry(from, agent.clone(), asked.clone()));
                }
            }
        });
        Self { address, asked, task: task.abort_handle() }
    }

    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    /// The first line of each request.
    pub(super) fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, line)| line.clone()).collect()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(from: TcpStream, agent: String, asked: Arc<Mutex<Vec<(Instant, String)>>>) {
    let Ok(to) = TcpStream::connect(agent).await else { return };
    let ((mut from, mut back), (mut answers, mut to)) = (from.into_split(), to.into_split());
    let there = async {
        let (mut chunk, mut line) = (vec![0; 16 << 10], Vec::new());
        while let Ok(count @ 1..) = from.read(&mut chunk).await {
            for byte in &chunk[..count] {
                line.push(*byte);
                if line.ends_with(b"\r\n") {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    if text.ends_with(" HTTP/1.1") {
                        asked.lock().unwrap().push((Instant::now(), text));
                    }
                    line.clear();
                }
            }
            if to.write_all(&chunk[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = there => {}
        _ = copy(&mut answers, &mut back) => {}
    }
}
