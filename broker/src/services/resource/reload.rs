//! Another inventory for a running instance: `resource.reload`, `resource.expiration-update`, and
//! a new configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use flux_protocol::errno::Errno;
use flux_protocol::failure::Failure;
use flux_protocol::idset::Idset;
use flux_protocol::message::Message;
use flux_protocol::payload::Empty;
use flux_protocol::r::{Node, ResourceSet};
use flux_protocol::rpc::resource as rpc;

use super::drain::Overwrite;
use super::hardware::{Hardware, host_name};
use super::inventory::{self, Inventory, Method};
use super::settings::{Settings, read_r};
use super::state::Change;
use super::{Context, Resource};
use crate::call::Sender;
use crate::log::Severity;

impl Resource {
    pub(super) fn reload(
        &mut self,
        context: &Context,
        request: rpc::ReloadRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        only_on_rank_0(context, "resource.reload")?;
        let path = Path::new(&request.path);
        let set = if request.xml {
            read_xml_files(path)?
        } else {
            read_r(path).map_err(|error| Failure::new(error.errno(), error.to_string()))?
        };
        let size = context.broker().size();
        if set.ranks().last().is_some_and(|last| last >= size) {
            if !request.force {
                let text = format!(
                    "resource object contains ranks execeeding size={size} (override with -f))"
                );
                return Err(Failure::new(Errno::EINVAL, text));
            }
            let text = format!("WARN: resource object contains ranks exceeding size={size}");
            context.log(Severity::Err, text);
        }
        if self.acquire.has_client() {
            return Err(Failure::new(Errno::EBUSY, "resources are busy (unload scheduler?)"));
        }
        self.define(context, Inventory { set, method: Method::RELOAD });
        Ok(Empty)
    }

    pub(super) fn expiration_update(
        &mut self,
        context: &Context,
        request: rpc::ExpirationRequest,
        _: &Sender,
    ) -> Result<Empty, Failure> {
        only_on_rank_0(context, "resource.expiration-update")?;
        self.set_expiration(context, request.expiration)?;
        Ok(Empty)
    }

    /// When all resources are taken away from us. ENOENT: there is no inventory.
    pub(super) fn set_expiration(
        &mut self,
        context: &Context,
        expiration: f64,
    ) -> Result<(), Failure> {
        let inventory = self.state.inventory.as_mut().ok_or(Errno::ENOENT)?;
        inventory.set.expiration = expiration;
        self.status.forget_all();
        self.post(context, Change::Update { expiration }, None);
        Ok(())
    }

    /// Take over what may change while the instance runs.
    pub(super) fn use_settings(
        &mut self,
        context: &Context,
        settings: &Settings,
    ) -> Result<(), Failure> {
        if context.rank() != 0 {
            return Ok(());
        }
        let exclude = self.excluded_ranks(settings)?;
        self.journal.set_max(settings.journal_max);
        let added = exclude.difference(&self.state.exclude);
        let removed = self.state.exclude.difference(&exclude);
        if !added.is_empty() {
            self.post(context, Change::Exclude(added), None);
        }
        if !removed.is_empty() {
            let unknown = self.acquire.unknown_to_scheduler(&removed);
            if !unknown.is_empty() {
                let text = format!(
                    "ranks {unknown} are no longer excluded, but the scheduler was loaded without \
                     them: flux module reload sched-simple"
                );
                context.log(Severity::Warning, text);
            }
            self.post(context, Change::Unexclude(removed), None);
        }
        self.undrain_excluded(context, &exclude);
        Ok(())
    }

    /// `resource.exclude` as ranks.
    pub(super) fn excluded_ranks(&self, settings: &Settings) -> Result<Idset, Failure> {
        let Some(text) = settings.exclude.as_deref() else { return Ok(Idset::new()) };
        let ranks = inventory::targets(text, self.state.inventory.as_ref()).map_err(|error| {
            Failure::new(Errno::EINVAL, format!("error decoding exclude set {text}: {error}"))
        })?;
        if ranks.last().is_some_and(|last| last >= self.state.size) {
            let text = format!("exclude set {text} is out of range");
            return Err(Failure::new(Errno::EINVAL, text));
        }
        Ok(ranks)
    }

    /// What is excluded is not drained as well, nor when it is not excluded any more.
    pub(super) fn undrain_excluded(&mut self, context: &Context, exclude: &Idset) {
        let ranks = self.requested_drain.ranks().intersect(exclude);
        if !ranks.is_empty() {
            let overwrite = Overwrite::No;
            self.post_drain(context, Change::Undrain { ranks, reason: None, overwrite }, None);
        }
    }

    /// ENOSYS on the other ranks, which do not have the method.
    #[allow(clippy::unused_self, reason = "called like the checks of other services")]
    pub(super) fn only_on_leader(
        &self,
        context: &Context,
        request: &Message,
    ) -> Result<(), Failure> {
        match context.rank() {
            0 => Ok(()),
            _ => {
                let text = format!("Unknown service method '{}'", request.topic);
                Err(Failure::new(Errno::ENOSYS, text))
            }
        }
    }
}

fn only_on_rank_0(context: &Context, topic: &str) -> Result<(), Failure> {
    match context.rank() {
        0 => Ok(()),
        _ => Err(Failure::new(Errno::ENOSYS, format!("{topic} is only available on rank 0"))),
    }
}

/// Topologies by rank: `RANK.xml` in a folder.
fn read_xml_files(folder: &Path) -> Result<ResourceSet, Failure> {
    let shown = folder.display();
    let error = |error: std::io::Error| {
        let errno = Errno::from(&error);
        Failure::new(errno, format!("{shown}: {errno}"))
    };
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let is_xml = path.extension().is_some_and(|extension| extension == "xml");
        let rank = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok());
        if let (true, Some(rank)) = (is_xml, rank) {
            files.insert(rank, std::fs::read_to_string(&path).map_err(error)?);
        }
    }
    if files.is_empty() {
        let text = format!("{shown}: invalid directory: no XML input files found");
        return Err(Failure::new(Errno::EINVAL, text));
    }
    let mut set = ResourceSet::new();
    for (rank, xml) in files {
        let host = host_name(&xml).unwrap_or_else(|| format!("rank{rank}"));
        let hardware = Hardware::from_xml(xml).map_err(|error| {
            let text = format!("error building R from hwloc XML: {rank}.xml: {error}");
            Failure::new(Errno::EINVAL, text)
        })?;
        let resources = Arc::new(hardware.resources);
        set.insert_node(rank, Node { host: host.into(), resources });
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_of_topologies_gives_a_set() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = read_xml_files(folder.path()).unwrap_err().to_string();
        assert!(refusal.ends_with("invalid directory: no XML input files found"), "{refusal}");
        for rank in 0..2 {
            let xml = format!(
                "<topology version=\"2.0\"><object type=\"Machine\">\
                 <info name=\"HostName\" value=\"a{rank}\"/><object type=\"Core\"/>\
                 </object></topology>"
            );
            std::fs::write(folder.path().join(format!("{rank}.xml")), xml).unwrap();
        }
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        let set = read_xml_files(folder.path()).unwrap();
        assert_eq!(set.dumps(), "rank[0-1]/core0");
        assert_eq!(set.nodelist().to_string(), "a[0-1]");
        std::fs::write(folder.path().join("2.xml"), "x").unwrap();
        let refusal = read_xml_files(folder.path()).unwrap_err().to_string();
        assert!(refusal.starts_with("error building R from hwloc XML: 2.xml"), "{refusal}");
    }
}
