//! `flux batch`: a script in an instance of its own.

use std::ffi::OsString;
use std::io::Read as _;

use clap::{Args, FromArgMatches as _};

use crate::context::Context;
use crate::failure::{Failure, Outcome, strerror};
use crate::submission::nest::{Nest, Program};
use crate::submission::options::Common;
use crate::submission::{directives, files, refuse, send};
use crate::{jobid, outln, table, usage};

/// Where the output goes unless the job says otherwise.
const OUTPUT: &str = "flux-{{id}}.out";
/// The script among the files of the job.
const SCRIPT: &str = "script";
const EXECUTABLE: u32 = 0o700;

#[derive(Debug, Args)]
#[command(override_usage = "flux-batch [OPTIONS...] COMMAND [ARGS...]")]
pub(crate) struct Batch {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    nest: Nest,
    /// Wrap arguments or stdin in a /bin/sh script
    #[arg(long)]
    wrap: bool,
    /// Batch script and arguments to submit
    #[arg(trailing_var_arg = true, value_name = "SCRIPT")]
    script: Vec<String>,
}

impl Batch {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        let (script, options) = self.read_script(&context)?;
        let jobspec = options.jobspec(script, &context)?;
        if options.common.dry_run {
            send::print(&jobspec)?;
            return Ok(0);
        }
        let request = send::request(&options.common, &jobspec)?;
        let flux = context.connect().await?;
        let id = send::send(&flux, &request).await?;
        if !options.common.quiet {
            outln!("{}", jobid::f58(id));
        }
        Ok(0)
    }

    /// The script, and the options with those of the script, which come first.
    fn read_script(self, context: &Context) -> Result<(String, Batch), Failure> {
        if self.wrap && !self.script.is_empty() {
            return Ok((format!("{}\n", self.script.join(" ")), self));
        }
        let (name, text) = match self.script.first() {
            Some(path) => (path.as_str(), std::fs::read(path)),
            None => {
                let mut text = Vec::new();
                ("stdin", std::io::stdin().read_to_end(&mut text).map(|_| text))
            }
        };
        let text = text.map_err(|error| refuse(format_args!("{}: '{name}'", strerror(&error))))?;
        let text = String::from_utf8(text).map_err(|_| {
            let reason = "does not appear to be a script, or failed to encode as utf-8";
            refuse(format_args!("{name} {reason}"))
        })?;
        let found =
            directives::parse(&text).map_err(|error| refuse(format_args!("{name}: {error}")))?;
        if found.is_empty() {
            return Ok((text, self));
        }
        let mut args: Vec<OsString> = Vec::new();
        for directive in found {
            let own: Vec<OsString> = directive.args.into_iter().map(OsString::from).collect();
            parse(&own).map_err(|failure| {
                // The parser has said what is wrong.
                failure.report("flux-batch");
                let line = directive.line;
                eprintln!("flux-batch: ERROR: argument parsing failed at {name} line {line}");
                Failure::silent(2)
            })?;
            args.extend(own);
        }
        args.extend(context.args.iter().cloned());
        let mut options = parse(&args)?;
        options.common.as_mini = self.common.as_mini;
        Ok((text, options))
    }

    fn jobspec(
        &self,
        script: String,
        context: &Context,
    ) -> Result<flux_protocol::jobspec::Jobspec, Failure> {
        let script = if self.wrap { format!("#!/bin/sh\n{script}") } else { script };
        let first = self.script.first().map_or("batch", String::as_str);
        let name = self.common.job_name.clone().unwrap_or_else(|| first.to_owned());
        let mut command = vec![format!("{{{{tmpdir}}}}/{SCRIPT}")];
        command.extend(self.script.iter().skip(1).cloned());
        let common = &self.common;
        let program = Program {
            command,
            name: Some(name.clone()),
            input: common.input.clone(),
            output: Some(common.output.clone().unwrap_or_else(|| OUTPUT.to_owned())),
            error: common.error.clone(),
            label_io: common.label_io,
            broker_opts: Vec::new(),
        };
        let mut jobspec = self.nest.jobspec(common, program)?;
        if !script.starts_with("#!") {
            return Err(refuse(format_args!("{name} does not appear to start with '#!'")));
        }
        files::set_file(&mut jobspec, SCRIPT, files::text_file(&script, EXECUTABLE));
        common.apply(&mut jobspec, context.env.all(), self.nest.taskmap().as_deref())?;
        Ok(jobspec)
    }
}

fn parse(args: &[OsString]) -> Result<Batch, Failure> {
    let style = table::Style::Argparse;
    let blank = clap::Command::new("batch").bin_name(style.full_name("batch"));
    let mut parser = table::with_habits(Batch::augment_args(blank));
    parser
        .try_get_matches_from_mut(args)
        .and_then(|matches| Batch::from_arg_matches(&matches))
        .map_err(|error| usage::settle(&error, &mut parser, args, style))
}
