//! Boots of whole instances within one thread, against a PMI server that the test plays.

use std::collections::HashMap;
use std::os::fd::AsRawFd;
use std::path::Path;

use flux_pmi::{Action, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::pmi::simple::SimplePmi;
use super::*;
use crate::overlay::topology::Shape;
use flux_cert::Certificate;

/// Answer the clients at the other ends of these sockets until all have gone. Returns the number
/// of requests by command.
async fn serve(mut server: Server, streams: Vec<UnixStream>) -> HashMap<String, usize> {
    let (lines_tx, mut lines) = mpsc::unbounded_channel();
    let mut clients: Vec<OwnedWriteHalf> = Vec::new();
    for (client, stream) in streams.into_iter().enumerate() {
        let (read, write) = stream.into_split();
        clients.push(write);
        let lines_tx = lines_tx.clone();
        tokio::task::spawn_local(async move {
            let mut read = BufReader::new(read).lines();
            while let Ok(Some(line)) = read.next_line().await {
                lines_tx.send((client, line)).unwrap();
            }
        });
    }
    drop(lines_tx);
    let mut counts = HashMap::new();
    while let Some((client, line)) = lines.recv().await {
        let command = line.split(' ').next().unwrap().trim_start_matches("cmd=").to_owned();
        *counts.entry(command).or_default() += 1;
        match server.request(&line).unwrap() {
            Action::Reply(reply) | Action::Finalized(reply) => {
                send(&mut clients[client], &reply).await;
            }
            Action::Wait => {}
            Action::Complete => {
                let reply = server.release([]);
                for client in &mut clients {
                    send(client, &reply).await;
                }
            }
            Action::Abort { text, .. } => panic!("{text}"),
        }
    }
    counts
}

async fn send(client: &mut OwnedWriteHalf, line: &str) {
    client.write_all(format!("{line}\n").as_bytes()).await.unwrap();
}

struct Launched {
    boots: Vec<(Result<Boot, BootError>, Attrs)>,
    requests: HashMap<String, usize>,
}

/// Boot `size` brokers that share a node, all with the same attributes.
async fn launch(size: u32, presets: &[(&str, &str)], set: &[(&str, &str)]) -> Launched {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::new("kvs", size, size);
    for (key, value) in presets {
        server.preset(*key, *value);
    }
    let mut ends = Vec::new();
    let mut brokers = Vec::new();
    for rank in 0..size {
        let (client, end) = UnixStream::pair().unwrap();
        ends.push(end);
        brokers.push(tokio::task::spawn_local(boot_one(
            client,
            (rank, size),
            dir.path().to_owned(),
            set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        )));
    }
    let server = tokio::task::spawn_local(serve(server, ends));
    let mut boots = Vec::new();
    for broker in brokers {
        boots.push(broker.await.unwrap());
    }
    Launched { boots, requests: server.await.unwrap() }
}

async fn boot_one(
    client: UnixStream,
    (rank, size): (u32, u32),
    rundir: std::path::PathBuf,
    set: Vec<(String, String)>,
) -> (Result<Boot, BootError>, Attrs) {
    let attrs = Attrs::default();
    for (name, value) in set {
        attrs.put(&name, value, Access::ReadOnly);
    }
    attrs.put("rundir", rundir.to_string_lossy(), Access::Immutable);
    let boot = async {
        let env = |name: &str| match name {
            "PMI_FD" => Some(client.as_raw_fd().to_string()),
            "PMI_RANK" => Some(rank.to_string()),
            "PMI_SIZE" => Some(size.to_string()),
            _ => None,
        };
        let hostname = format!("n{rank}");
        begin_in(&attrs, &Config::default(), &hostname, env).await?.wire_up(&attrs).await
    };
    let boot = boot.await;
    (boot, attrs)
}

fn local<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

fn env_of_nothing(_: &str) -> Option<String> {
    None
}

#[test]
fn seven_brokers_on_a_node_find_each_other_over_local_sockets() {
    local(async {
        let presets = [("PMI_process_mapping", "(vector,(0,1,7))")];
        let launched = launch(7, &presets, &[]).await;
        for (rank, (boot, attrs)) in (0..).zip(&launched.boots) {
            let boot = boot.as_ref().unwrap();
            assert_eq!((boot.rank, boot.size), (rank, 7));
            assert_eq!(attrs.get("hostlist").as_deref(), Some("n[0-6]"));
            assert_eq!(attrs.get("broker.boot-method").as_deref(), Some("simple"));
            assert_eq!(attrs.get("broker.mapping").as_deref(), Some("[[0,1,7,1]]"));
            assert_eq!(attrs.get("tbon.topo").as_deref(), Some("kary:2"));
            assert_eq!(attrs.get("tbon.maxlevel").as_deref(), Some("2"));
            assert_eq!(attrs.get("broker.critical-ranks").as_deref(), Some("0-2"));
            assert_eq!(attrs.get("instance-level"), None);
            let parent = boot.links.as_ref().unwrap().parent.clone();
            let rundir = attrs.get("rundir").unwrap();
            let expected = boot.topology.parent(rank).map(|p| format!("ipc://{rundir}/tbon-{p}"));
            assert_eq!(parent.map(|parent| parent.endpoint), expected);
            assert_eq!(attrs.get("tbon.parent-endpoint"), expected);
        }
        // All cards are read by rank 0 alone.
        let cards = launched.requests["get"];
        assert!(cards <= 7 * 6, "{cards} gets");
    });
}

#[test]
fn brokers_on_other_nodes_are_reached_by_tcp() {
    local(async {
        let presets = [("PMI_process_mapping", "(vector,(0,2,2))")];
        let set = [("tbon.interface-hint", "lo"), ("tbon.topo", "kary:0")];
        let launched = launch(4, &presets, &set).await;
        let endpoint = |rank: usize| {
            let boot = launched.boots[rank].0.as_ref().unwrap();
            boot.links.as_ref().unwrap().parent.clone().unwrap().endpoint
        };
        assert!(endpoint(1).starts_with("ipc://"));
        for rank in [2, 3] {
            let address = endpoint(rank);
            assert!(
                address.starts_with("tcp://127.0.0.1:") && !address.ends_with('*'),
                "{address}"
            );
        }
    });
}

#[test]
fn prefertcp_leaves_local_sockets_out() {
    local(async {
        let presets = [("PMI_process_mapping", "(vector,(0,1,2))")];
        let set =
            [("tbon.interface-hint", "lo"), ("tbon.prefertcp", "1"), ("tbon.zmq_io_threads", "4")];
        let launched = launch(2, &presets, &set).await;
        // Those are for him who talks to all.
        let threads = |rank: usize| launched.boots[rank].1.get("tbon.zmq_io_threads");
        assert_eq!((threads(0).as_deref(), threads(1).as_deref()), (Some("4"), Some("1")));
        let (boot, attrs) = &launched.boots[1];
        let parent = boot.as_ref().unwrap().links.as_ref().unwrap().parent.clone().unwrap();
        assert!(parent.endpoint.starts_with("tcp://127.0.0.1:"), "{}", parent.endpoint);
        assert_eq!(attrs.get("tbon.endpoint"), None);
    });
}

#[test]
fn job_shell_tells_level_job_and_mapping() {
    local(async {
        let presets = [
            ("flux.instance-level", "1"),
            ("flux.taskmap", "[[0,2,1,1]]"),
            ("flux.tbon-interface-hint", "lo"),
        ];
        let launched = launch(2, &presets, &[]).await;
        for (boot, attrs) in &launched.boots {
            boot.as_ref().unwrap();
            assert_eq!(attrs.get("instance-level").as_deref(), Some("1"));
            assert_eq!(attrs.get("jobid").as_deref(), Some("kvs"));
            assert_eq!(attrs.get("broker.mapping").as_deref(), Some("[[0,2,1,1]]"));
            assert_eq!(attrs.get("tbon.interface-hint").as_deref(), Some("lo"));
        }
    });
}

#[test]
fn values_that_are_too_long_for_the_launcher_are_not_put() {
    local(async {
        let (client, mut server) = UnixStream::pair().unwrap();
        let answers = "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n\
             cmd=maxes rc=0 kvsname_max=64 keylen_max=64 vallen_max=8\n\
             cmd=my_kvsname rc=0 kvsname=k\n";
        server.write_all(answers.as_bytes()).await.unwrap();
        let mut pmi = Pmi::Simple(SimplePmi::init(0, 2, client).await.unwrap());
        assert!(!pmi.try_put("flux.hostlist", "n[0-1000]").await.unwrap());
        let error = pmi.put("0", "12345678").await.unwrap_err().to_string();
        assert_eq!(error, "value of 0 has 8 bytes, of which the launcher takes 7");
    });
}

#[test]
fn broker_without_launcher_and_table_is_alone() {
    local(async {
        let attrs = Attrs::default();
        let booting = begin_in(&attrs, &Config::default(), "h", env_of_nothing).await.unwrap();
        assert_eq!((booting.rank(), booting.size()), (0, 1));
        let boot = booting.wire_up(&attrs).await.unwrap();
        assert!(boot.links.is_none());
        for (name, value) in [
            ("broker.boot-method", "single"),
            ("broker.mapping", "[[0,1,1,1]]"),
            ("broker.critical-ranks", "0"),
            ("hostlist", "h"),
            ("tbon.level", "0"),
            ("tbon.descendants", "0"),
        ] {
            assert_eq!(attrs.get(name).as_deref(), Some(value), "{name}");
        }
    });
}

#[test]
fn method_can_be_chosen() {
    local(async {
        let toml = "[bootstrap]\nhosts = [{ host = 'h' }]";
        let config = Config::from_object(toml::from_str(toml).unwrap());
        let method = async |attr: Option<&str>, env: Option<&'static str>| {
            let attrs = Attrs::default();
            if let Some(attr) = attr {
                attrs.put("broker.boot-method", attr, Access::Immutable);
            }
            let env =
                |name: &str| env.filter(|_| name == "FLUX_PMI_CLIENT_METHODS").map(str::to_owned);
            let booting = begin_in(&attrs, &config, "h", env).await;
            booting.map(|booting| booting.method()).map_err(|error| error.to_string())
        };
        assert_eq!(method(None, None).await, Ok("config"));
        assert_eq!(method(Some("single"), None).await, Ok("single"));
        assert_eq!(method(None, Some("libpmi single config")).await, Ok("single"));
        assert_eq!(
            method(Some("simple"), None).await,
            Err("no boot method is usable: simple".to_owned())
        );
        let error = method(Some("simple libpmi2:/nonexistent/libpmi2.so"), None).await.unwrap_err();
        let expected = "no boot method is usable: simple libpmi2:/nonexistent/libpmi2.so (libpmi2: \
             init: /nonexistent/libpmi2.so: cannot open";
        assert!(error.starts_with(expected), "{error}");
    });
}

/// An instance from a configuration file, at the rank of `hostname`.
async fn configured(toml: &str, hostname: &str, set: &[(&str, &str)]) -> Result<Boot, String> {
    let attrs = Attrs::default();
    for (name, value) in set {
        attrs.put(name, *value, Access::ReadOnly);
    }
    let config = Config::from_object(toml::from_str(toml).unwrap());
    let boot =
        async { begin_in(&attrs, &config, hostname, env_of_nothing).await?.wire_up(&attrs).await };
    boot.await.map_err(|error| error.to_string())
}

fn certificate(dir: &Path) -> String {
    let path = dir.join("curve.cert");
    Certificate::generate().unwrap().save(&path).unwrap();
    path.display().to_string()
}

#[test]
fn configured_hosts_are_ranks_with_endpoints() {
    local(async {
        let dir = tempfile::tempdir().unwrap();
        let (cert, at) = (certificate(dir.path()), dir.path().display());
        let toml = format!(
            "[bootstrap]\ncurve_cert = '{cert}'\ndefault_bind = 'ipc://{at}/%h'\n\
             default_connect = 'ipc://{at}/%h'\nhosts = [{{ host = 'test[1-16]' }}]"
        );
        let boot = configured(&toml, "test3", &[]).await.unwrap();
        assert_eq!((boot.rank, boot.size), (2, 16));
        assert_eq!(boot.topology.children(2), [5, 6]);
        let parent = boot.links.unwrap().parent.unwrap();
        assert_eq!(parent.endpoint, format!("ipc://{at}/test1"));
        assert!(dir.path().join("test3").exists());
        let flat = configured(&toml, "test9", &[("tbon.fanout", "256")]).await.unwrap();
        assert_eq!(flat.topology, Topology::new(Shape::Kary(256), 16).unwrap());
    });
}

#[test]
fn parent_keys_make_the_tree() {
    local(async {
        let dir = tempfile::tempdir().unwrap();
        let cert = certificate(dir.path());
        let toml = |hosts: &str| {
            format!(
                "[bootstrap]\ncurve_cert = '{cert}'\ndefault_bind = 'ipc://{}/%h'\n\
                default_connect = 'ipc://{}/%h'\nhosts = [{hosts}]",
                dir.path().display(),
                dir.path().display()
            )
        };
        let hosts = "{ host = 't[0-1]' }, { host = 't[2-3]', parent = 't1' }";
        let boot = configured(&toml(hosts), "t0", &[]).await.unwrap();
        assert_eq!(boot.topology.children(1), [2, 3]);
        assert_eq!(boot.topology.children(0), [1]);
        let error = async |hosts| configured(&toml(hosts), "t0", &[]).await.unwrap_err();
        assert_eq!(
            error("{ host = 't0', parent = 't1' }, { host = 't1' }").await,
            "Config file error [bootstrap] hosts: rank 0 (t0) may not have a parent in a tree \
             topology"
        );
        assert_eq!(
            error(
                "{ host = 't0' }, { host = 't1', parent = 't2' }, { host = 't2', parent = 't1' }"
            )
            .await,
            "Config file error [bootstrap] hosts: parent \"t1\" for t2 (rank 2) violates rule \
             against cycles"
        );
    });
}

#[test]
fn configuration_that_can_not_work_is_refused_before_anything_is_bound() {
    local(async {
        let dir = tempfile::tempdir().unwrap();
        let cert = certificate(dir.path());
        let error = async |lines: &str, hostname: &str| {
            let toml = format!("[bootstrap]\nhosts = [{{ host = 'a,b' }}]\n{lines}");
            configured(&toml, hostname, &[]).await.unwrap_err()
        };
        let with_cert = format!("curve_cert = '{cert}'\n");
        assert!(error("", "a").await.contains("bootstrap.curve_cert"));
        assert_eq!(error(&with_cert, "a").await, "bind URI is undefined for rank 0");
        assert_eq!(error(&with_cert, "b").await, "connect URI is undefined for rank 0");
        let missing = error("curve_cert = '/nonexistent'", "b").await;
        let expected = "Error loading certificate: /nonexistent: No such file or directory; ";
        assert!(missing.starts_with(expected), "{missing}");
        let nosuch = "default_bind = 'tcp://nosuch0:%p'\ndefault_port = 8050";
        assert!(error(&format!("{with_cert}{nosuch}"), "a").await.contains("nosuch0"));
    });
}

#[test]
fn critical_ranks_must_be_in_the_instance() {
    local(async {
        let set = [("broker.critical-ranks", "0-1")];
        let error = configured("", "h", &set).await.unwrap_err();
        assert_eq!(error, "invalid value for broker.critical-ranks='0-1'");
    });
}
