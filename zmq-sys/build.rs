//! Builds static libzmq with CURVE on top of the static libsodium that `libsodium-sys-stable`
//! built before it. Needs a C++ compiler and nothing from the network or the system.

use std::env;
use std::path::Path;
use std::process::exit;

/// What libzmq's own configure script would find on Linux. zeromq-src leaves these out; without
/// the CLOEXEC ones every descriptor would leak into the processes of jobs, and without eventfd
/// every wake-up goes through a socket pair. Release builds of libzmq define no more than this.
const LINUX_FEATURES: [&str; 14] = [
    "ZMQ_HAVE_EVENTFD",
    "ZMQ_HAVE_EVENTFD_CLOEXEC",
    "ZMQ_HAVE_O_CLOEXEC",
    "ZMQ_HAVE_SOCK_CLOEXEC",
    "ZMQ_IOTHREAD_POLLER_USE_EPOLL_CLOEXEC",
    "HAVE_ACCEPT4",
    "HAVE_CLOCK_GETTIME",
    "HAVE_MKDTEMP",
    "ZMQ_HAVE_IFADDRS",
    "ZMQ_HAVE_SO_KEEPALIVE",
    "ZMQ_HAVE_TCP_KEEPCNT",
    "ZMQ_HAVE_TCP_KEEPIDLE",
    "ZMQ_HAVE_TCP_KEEPINTVL",
    "ZMQ_HAVE_PTHREAD_SETNAME_2",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");

    let (Ok(include), Ok(lib)) = (env::var("DEP_SODIUM_INCLUDE"), env::var("DEP_SODIUM_LIB"))
    else {
        eprintln!(
            "no headers of the bundled libsodium: unset SODIUM_LIB_DIR, which asks for another"
        );
        exit(1);
    };
    let sodium = zeromq_src::LibLocation::new(Path::new(&lib), Path::new(&include));

    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        add_to_cxxflags(&LINUX_FEATURES);
    }
    // Draft options: a ROUTER that reports the end of a peer, and monitors that name its address.
    zeromq_src::Build::new().enable_draft(true).with_libsodium(Some(sodium)).build();
}

/// zeromq-src takes no extra definitions, but the compiler driver under it reads CXXFLAGS.
fn add_to_cxxflags(features: &[&str]) {
    let mut flags = env::var("CXXFLAGS").unwrap_or_default();
    for feature in features {
        flags.push_str(" -D");
        flags.push_str(feature);
        flags.push_str("=1");
    }
    // SAFETY: the build script has started no other thread.
    #[allow(unsafe_code)]
    unsafe {
        env::set_var("CXXFLAGS", flags);
    }
}
