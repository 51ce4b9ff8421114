//! `flux filemap`: the older name of `flux archive`, for scripts that have it. Archives were called
//! tags, and files were not copied unless that was asked for.

use clap::{Args, Subcommand};

use super::archive::{Archive, Command, Create, Extract, List, Remove, Which};
use crate::context::Context;
use crate::failure::Outcome;

#[derive(Debug, Args)]
#[command(override_usage = "flux filemap COMMAND [OPTIONS]")]
pub(crate) struct Filemap {
    #[command(subcommand)]
    command: Older,
}

#[derive(Debug, Subcommand)]
enum Older {
    /// As `flux archive create --mmap`
    Map {
        #[command(flatten)]
        tag: Tag,
        /// Copy the files
        #[arg(long)]
        disable_mmap: bool,
        #[command(flatten)]
        create: Create,
    },
    /// As `flux archive remove`
    Unmap {
        #[command(flatten)]
        tag: Tag,
        #[command(flatten)]
        remove: Remove,
    },
    /// As `flux archive extract`
    Get {
        #[command(flatten)]
        tag: Tag,
        #[command(flatten)]
        extract: Extract,
    },
    /// As `flux archive list`
    // Not `List`: a variant and what it is made of need names of their own.
    #[command(name = "list")]
    Show {
        #[command(flatten)]
        tag: Tag,
        #[command(flatten)]
        list: List,
    },
}

#[derive(Debug, Args)]
struct Tag {
    /// Archive NAME
    #[arg(short = 'T', long, value_name = "NAME")]
    tags: Option<String>,
}

impl Filemap {
    pub(crate) async fn run(self, context: Context) -> Outcome {
        eprintln!("flux-filemap: this command is deprecated: use flux archive");
        let command = match self.command {
            Older::Map { tag, disable_mmap, mut create } => {
                create.mmap |= !disable_mmap;
                tag.name(&mut create.which);
                Command::Create(create)
            }
            Older::Unmap { tag, mut remove } => {
                tag.name(&mut remove.which);
                Command::Remove(remove)
            }
            Older::Get { tag, mut extract } => {
                tag.name(&mut extract.which);
                Command::Extract(extract)
            }
            Older::Show { tag, mut list } => {
                tag.name(&mut list.which);
                Command::List(list)
            }
        };
        Archive { command }.run(context).await
    }
}

impl Tag {
    fn name(self, which: &mut Which) {
        if let Some(name) = self.tags {
            which.name = name;
        }
    }
}
