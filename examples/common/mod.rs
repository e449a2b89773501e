//! What the example programs share: flags, and the generated greeter.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each program uses its part")]

use std::{collections::VecDeque, fmt::Display, process::exit, str::FromStr, sync::Arc, time::Duration};

use callsign::{Registry, Server, ServiceInstance};
use tokio::{sync::watch, task::JoinHandle};
use tonic::{Request, Response, Status, transport::server::Router};

use helloworld::{
    HelloReply, HelloRequest,
    greeter_server::{Greeter, GreeterServer},
};

pub mod helloworld {
    #![allow(unused_qualifications, missing_docs, clippy::all, reason = "generated")]
    tonic::include_proto!("helloworld");
}

/// The command line, as flags with values, switches, and the rest.
#[derive(Debug)]
pub struct Flags {
    usage: &'static str,
    values: Vec<(String, String)>,
    switches: Vec<String>,
    rest: VecDeque<String>,
}

impl Flags {
    /// Reads the command line; on a mistake or `--help` says so and ends the program.
    pub fn read(usage: &'static str, with_value: &[&str], switches: &[&str]) -> Self {
        let mut flags = Self { usage, values: Vec::new(), switches: Vec::new(), rest: VecDeque::new() };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
                _ => (arg, None),
            };
            if name == "--help" || name == "-h" {
                println!("{usage}");
                exit(0);
            } else if with_value.contains(&name.as_str()) {
                let Some(value) = inline.or_else(|| args.next()) else {
                    flags.wrong(format!("{name} lacks its value"))
                };
                flags.values.push((name, value));
            } else if switches.contains(&name.as_str()) && inline.is_none() {
                flags.switches.push(name);
            } else if name.starts_with('-') {
                flags.wrong(format!("there is no {name}"));
            } else {
                flags.rest.push_back(inline.map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            }
        }
        flags
    }

    /// The values of a flag, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values.iter().filter(move |(flag, _)| flag == name).map(|(_, value)| value.as_str())
    }

    /// The last value of a flag.
    pub fn value<T: FromStr<Err: Display>>(&self, name: &str) -> Option<T> {
        self.all(name)
            .last()
            .map(|value| value.parse().unwrap_or_else(|error| self.wrong(format!("{name} {value}: {error}"))))
    }

    /// Whether a switch is set.
    pub fn has(&self, name: &str) -> bool {
        self.switches.iter().any(|switch| switch == name)
    }

    /// The next argument that belongs to no flag.
    pub fn next(&mut self) -> Option<String> {
        self.rest.pop_front()
    }

    /// Ends the program with what is wrong and how it is used.
    pub fn wrong(&self, what: impl Display) -> ! {
        eprintln!("{what}\n\n{}", self.usage);
        exit(2);
    }
}

/// A code as gRPC writes it: `DEADLINE_EXCEEDED`.
pub fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for char in format!("{code:?}").chars() {
        if char.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(char.to_uppercase());
    }
    name
}

/// Says who it is.
#[derive(Debug)]
pub struct Greet {
    id: String,
}

impl Greet {
    pub fn router(id: &str) -> Router {
        tonic::transport::Server::builder().add_service(GreeterServer::new(Self { id: id.to_owned() }))
    }
}

#[tonic::async_trait]
impl Greeter for Greet {
    async fn say_hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        Ok(Response::new(HelloReply { message: self.id.clone() }))
    }
}

/// Servers in this process, until they are told to stop.
#[derive(Debug, Default)]
pub struct Fleet {
    stop: watch::Sender<bool>,
    servers: Vec<(Arc<ServiceInstance>, JoinHandle<callsign::Result<()>>)>,
}

/// Starts greeters of these ids.
pub async fn fleet(registry: &Registry, ids: &[&str]) -> callsign::Result<Fleet> {
    let mut fleet = Fleet::default();
    for id in ids {
        fleet.start(Server::new("greeter").id(*id).grpc("127.0.0.1:0", Greet::router(id)), registry).await?;
    }
    Ok(fleet)
}

impl Fleet {
    /// Starts a server, and waits until it is registered.
    pub async fn start(&mut self, server: Server, registry: &Registry) -> callsign::Result<()> {
        let server = server.drain(Duration::ZERO).bind(registry.clone()).await?;
        let (instance, registered) = (server.instance(), server.registration().registered());
        let mut stop = self.stop.subscribe();
        let serving = tokio::spawn(server.serve(async move { drop(stop.wait_for(|stop| *stop).await) }));
        registered.await?;
        self.servers.push((instance, serving));
        Ok(())
    }

    pub fn instances(&self) -> impl Iterator<Item = &ServiceInstance> {
        self.servers.iter().map(|(instance, _)| &**instance)
    }

    /// Stops them all, and waits until they have.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for (_, server) in self.servers {
            assert!(server.await.is_ok_and(|served| served.is_ok()), "it drained");
        }
    }
}
