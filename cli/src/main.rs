//! `flux`: the command of users and administrators.
//!
//! Options of its own, then a command: a row of [`table`], or a program `flux-NAME`.

use std::ffi::OsString;

use flux_protocol::layout::Layout;

use context::Context;
use environment::Environment;
use failure::{Failure, Outcome};
use options::{Options, Unknown};

mod archive;
mod args;
mod attach;
mod blobstore;
mod cmd;
mod context;
mod descriptor;
mod environment;
mod eventlog;
mod external;
mod failure;
mod help_lists;
mod job_output;
mod jobid;
mod joblist;
mod jobwatch;
mod json_text;
mod listing;
mod man;
mod mpir;
mod options;
mod output;
mod pattern;
mod settings;
mod signal;
mod signing;
mod stdlog;
mod submission;
mod sys;
mod table;
mod target;
mod term;
mod toml_files;
mod trace;
mod treewalk;
mod usage;
mod when;

fn main() {
    let code = match start() {
        Ok(code) => code,
        Err(failure) => failure.report("flux"),
    };
    output::flush();
    std::process::exit(i32::from(code));
}

/// Returns what `flux` itself has to say; a command reports under its own name.
fn start() -> Outcome {
    let mut args = std::env::args_os();
    let invoked = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    let words: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let (options, count) = Options::parse(&words).map_err(|Unknown(option)| {
        eprintln!("flux: unrecognized option '{option}'");
        eprintln!("Try `flux --help' for more information.");
        Failure::silent(1)
    })?;
    if options.help {
        output::emit(format_args!("{}", cmd::help::overview()));
        return Ok(0);
    }
    let (name, args) = match (words.get(count), options.version) {
        (_, true) => ("version", &[][..]),
        (Some(name), false) => (name.as_str(), args.get(count + 1..).unwrap_or_default()),
        (None, false) => {
            eprint!("{}", cmd::help::overview());
            return Err(Failure::silent(1));
        }
    };
    let mut context = context(&invoked.to_string_lossy())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::of("can't start", e))?;
    runtime.block_on(go_up(&mut context, &options))?;
    if options.verbose {
        for (name, value) in context.env.ours() {
            outln!("{name}={value}");
        }
        output::flush();
    }
    let Some(command) = table::find(name) else {
        return Err(external::exec(&context, name, args, options.verbose));
    };
    let outcome = runtime.block_on(run(command, args, context));
    // Reads from a terminal can't be interrupted, and nobody waits for them any more.
    runtime.shutdown_background();
    Ok(match outcome {
        Ok(code) => code,
        Err(failure) => failure.report(&format!("flux-{name}")),
    })
}

async fn run(command: &table::Command, args: &[OsString], mut context: Context) -> Outcome {
    if command.style != table::Style::Builtin {
        context.open_prefix = format!("flux-{}", command.name);
    }
    context.args = args.to_vec();
    let mut parser = (command.build)();
    let running = parser
        .try_get_matches_from_mut(args.iter().map(attached_value))
        .and_then(|matches| (command.run)(matches, context))
        .map_err(|error| usage::settle(&error, &mut parser, args, command.style))?;
    running.await
}

/// `-LWHEN` as `--color=WHEN`, `-RWHO` as `--rusage=WHO`: getopt(3) takes an optional value that way,
/// clap does not.
fn attached_value(arg: &OsString) -> OsString {
    match arg.to_str().and_then(|arg| arg.split_at_checked(2)) {
        Some(("-L", when @ ("always" | "never" | "auto"))) => format!("--color={when}").into(),
        Some(("-R", who @ ("self" | "children" | "thread"))) => format!("--rusage={who}").into(),
        _ => arg.clone(),
    }
}

fn context(invoked: &str) -> Result<Context, Failure> {
    let program = std::env::current_exe()
        .map_err(|e| Failure::of("can't find out where this program is", e))?;
    let program = program.canonicalize().unwrap_or(program);
    let layout = Layout::from_program(&program);
    let env = Environment::new(invoked, &program, &layout);
    Ok(Context { env, layout, args: Vec::new(), open_prefix: "flux".to_owned() })
}

/// `--parent` and `--root`: continue as if called in an enclosing instance.
async fn go_up(context: &mut Context, options: &Options) -> Result<(), Failure> {
    let mut levels = if options.root { u32::MAX } else { options.parents };
    while levels > 0 {
        let flux = context.connect().await?;
        // The outermost instance has no parent.
        let Ok(uri) = flux.attr("parent-uri").await else { break };
        let uri = context.seen_from_here(uri);
        context.env.set("FLUX_URI", &uri);
        match flux.attr("parent-kvs-namespace").await {
            Ok(namespace) => context.env.set("FLUX_KVS_NAMESPACE", &namespace),
            Err(_) => context.env.unset("FLUX_KVS_NAMESPACE"),
        }
        levels -= 1;
    }
    Ok(())
}
