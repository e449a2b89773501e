//! The smallest gRPC server: what is measured against it is the client.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::TcpListener;

/// The argument by which a benchmark's program runs as the server.
pub const SERVE: &str = "--serve-echo";

/// Echoes each request's body, on each of so many ports, which are printed first.
///
/// # Errors
///
/// If it cannot listen.
pub async fn serve(ports: usize) -> Result<(), Box<dyn Error>> {
    let mut listeners = Vec::new();
    for _ in 0..ports {
        listeners.push(TcpListener::bind("127.0.0.1:0").await?);
    }
    for listener in &listeners {
        println!("{}", listener.local_addr()?);
    }
    for listener in listeners {
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream.set_nodelay(true));
                tokio::spawn(connection(stream));
            }
        });
    }
    // Until the benchmark is gone.
    let mut line = String::new();
    tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut line)).await??;
    Ok(())
}

async fn connection(stream: tokio::net::TcpStream) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_concurrent_streams(1_000)
        .handshake::<_, Bytes>(stream)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, mut respond) = accepted?;
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut response = Response::new(());
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let mut send = respond.send_response(response, false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                // Empty ones, which only end the body, are not echoed: h2 takes them for an attack.
                if !data.is_empty() {
                    send.send_data(data, false)?;
                }
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            send.send_trailers(trailers)
        });
    }
    Ok(())
}

/// The server as a process, gone when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Runs this very program as the server.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn start(ports: usize) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([SERVE, &ports.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let lines = BufReader::new(stdout).lines().take(ports);
        let addresses = lines.map(|line| Ok::<_, Box<dyn Error>>(line?.parse()?)).collect::<Result<_, _>>()?;
        Ok(Self { child, addresses })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
