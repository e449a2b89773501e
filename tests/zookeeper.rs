//! ZooKeeper, on real members of it: conformance, outages of all kinds, users, and what is left behind.
//!
//! What went wrong elsewhere, and where it is held here:
//!
//! | | what | upstream | test |
//! | --- | --- | --- | --- |
//! | Z1 | an expired session is the end of a registration | kratos #2235, hive #25846, memq #55, fluss #1004 | `outage::a_stop_longer_than_the_session_removes_nobody_and_is_recovered_from` |
//! | Z1 | the first try that fails is the last | kratos #2235 | `errors::registers_again_however_often_that_fails` |
//! | Z1 | what was deregistered is registered again | Kratos's loop | `errors::what_was_deregistered_while_it_was_away_does_not_come_back` |
//! | Z1 | a negative session id is none | Kratos's `cur > 0` | `ensemble::a_session_moves_where_the_leader_stops` |
//! | Z2 | a node that another session left is leant on | kratos #2245, dubbo #5135, KAFKA-7165 | `watching::the_same_id_is_taken_over_and_the_first_owner_cannot_harm_it` |
//! | Z2 | one's own node is taken for another's | the same | `errors::a_node_of_ours_whose_making_was_not_heard_of_is_kept` |
//! | Z3 | a service that is not there yet is not followed, or leaks | kratos #2555, nitro #383, micro #631 | `watching::sees_a_service_begin_and_its_data_change`, `watching::is_quiet_at_rest_reads_what_changed_alone_and_leaves_nothing` |
//! | Z4 | a watch ends with its connection | kratos #3517 | `errors::what_changes_without_a_connection_is_seen_after_it`, `outage::another_member_goes_on_where_one_stops` |
//! | Z4 | an error that stays is a hot loop | kratos #3517 | `errors::an_error_that_stays_is_asked_about_ever_less_often` |
//! | Z5, W8 | changed data is not seen | kratos #1986, #1966 | `watching::sees_a_service_begin_and_its_data_change` |
//! | Z6 | a node that goes while it is read fails the list | Kratos's `GetService` | `errors::a_node_that_goes_between_the_list_and_its_reading_is_gone` |
//! | Z7 | what happens without a connection is lost | ZOOKEEPER-4698, ZooKeeper PR #1950, #1106, pulsar #20405, rust-zookeeper #97 | `errors::what_changes_without_a_connection_is_seen_after_it`, `old::a_session_at_an_old_server_has_one_kind_of_watches_and_misses_nothing` |
//! | | watches of both kinds on one path | ZOOKEEPER-4466 | `old::a_session_at_an_old_server_has_one_kind_of_watches_and_misses_nothing` |
//! | | an absent `enabled` | CURATOR-275 | of the codec: `an_instance_is_up_unless_it_says_otherwise` |
//! | W1 | a node deleted by hand is not put back | seen with Kratos | `watching::a_node_deleted_by_hand_is_put_back_and_a_lease_nobody_renews_ends` |
//! | W2 | the last instance is never gone | seen with Kratos | `watching::sees_a_service_begin_and_its_data_change` |
//! | W4 | one bad node fails the whole list | seen with Kratos | `watching::a_bad_neighbour_and_a_longer_name_do_no_harm` |
//! | W5 | a registry that is away ends the application | seen with Kratos | `outage::a_start_before_zookeeper_is_no_failure` |
//! | W9 | a slash in an id | seen with Kratos | `watching::a_name_that_no_path_holds_is_refused` |

#![cfg(all(feature = "zookeeper", feature = "server"))]
#![allow(missing_docs, clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use callsign::{
    Kind, Registration,
    registry::{Discovery, Registrar, Renewal, Watch, ZooKeeper, ZooKeeperBuilder},
    server::RegistrationState,
};
use tokio::time::{Instant, sleep, timeout};
use zookeeper_client::{Acls, Client, CreateMode};

#[path = "support/dir.rs"]
mod dir;
#[path = "support/follow.rs"]
mod follow;
#[path = "support/link.rs"]
mod link;
#[path = "support/matrix.rs"]
mod matrix;
#[path = "support/process.rs"]
mod process;
#[path = "support/servers/zookeeper.rs"]
mod real;
#[path = "support/servers/mod.rs"]
mod servers;

#[path = "zookeeper/between.rs"]
mod between;
#[path = "zookeeper/ensemble.rs"]
mod ensemble;
#[path = "zookeeper/errors.rs"]
mod errors;
#[path = "zookeeper/layout.rs"]
mod layout;
#[path = "zookeeper/old.rs"]
mod old;
#[path = "zookeeper/outage.rs"]
mod outage;
#[path = "zookeeper/secure.rs"]
mod secure;
#[path = "zookeeper/stand.rs"]
mod stand;
#[path = "zookeeper/watching.rs"]
mod watching;

use between::Between;
use follow::*;
use servers::Shared;

/// One member for all tests that do it no harm; each has a root of its own.
fn shared() -> Option<Arc<real::ZooKeeper>> {
    static SHARED: Shared<real::ZooKeeper> = Shared::new();
    SHARED.get(|| real::ZooKeeper::start(1))
}

fn at(real: &real::ZooKeeper) -> ZooKeeperBuilder {
    ZooKeeper::builder(real.members())
}

/// Past callsign.
async fn by_hand(real: &real::ZooKeeper) -> Client {
    Client::connector().with_session_timeout(Duration::from_secs(20)).connect(&real.members().join(",")).await.unwrap()
}

async fn put(client: &Client, path: &str, data: &str) {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let (parent, _) = path.rsplit_once('/').unwrap();
    client.mkdir(parent, &options).await.unwrap();
    client.create(path, data.as_bytes(), &options).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let Some(real) = shared() else { return };
    let zookeeper = at(&real).root("/conforms").session(Duration::from_secs(4)).build().unwrap();
    callsign::testing::conformance::run(|| zookeeper.clone().into()).await;
}

#[tokio::test]
async fn is_opened_by_its_uri_and_a_server_and_a_client_meet() {
    let Some(real) = shared() else { return };
    let uri = format!("zk://{}?root=/opened&session=5s", real.members()[0]);
    let registry = callsign::registry(&uri).unwrap();
    let registration = registered(registry, instance("a"), &Arc::default()).await;
    let mut watch = callsign::registry(&uri).unwrap().discovery().watch(&service());
    until(&mut watch, &["a"]).await;
    let (data, stat) = by_hand(&real).await.get_data("/opened/s/a").await.unwrap();
    assert_eq!(String::from_utf8(data).unwrap(), instance("a").to_json());
    assert!(stat.ephemeral_owner != 0);
    registration.shutdown().await;
    until(&mut watch, &[]).await;
}

#[test]
fn sessions_belong_to_the_runtime_that_asked() {
    let Some(real) = shared() else { return };
    let zookeeper = at(&real).root("/runtimes").build().unwrap();
    for n in 0..5 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let set = runtime.block_on(zookeeper.list(&service())).unwrap();
        assert!(set.instances().is_empty(), "run {n}");
        let lease = runtime.block_on(zookeeper.register(&Arc::new(instance("a")))).unwrap();
        runtime.block_on(zookeeper.deregister(&lease)).unwrap();
    }
}
