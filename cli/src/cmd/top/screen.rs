//! The screen as lines: bars of resources, numbers of jobs, a table of those that run.

use flux_protocol::fluid::JobId;

use crate::jobid;
use crate::joblist::{JobInfo, JobStats};
use crate::listing::cut_off;
use crate::term::{paint, sgr};

const BAR: usize = 20;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) nodes: u64,
    pub(super) cores: u64,
    pub(super) gpus: u64,
}

/// What is known of the instance.
#[derive(Debug, Default)]
pub(super) struct Screen {
    pub(super) title: String,
    pub(super) all: Amount,
    pub(super) down: Amount,
    pub(super) used: Amount,
    pub(super) stats: JobStats,
    pub(super) jobs: Vec<JobInfo>,
    /// Why what the last key asked for was not done.
    pub(super) notice: Option<String>,
    /// None is selected before a key asks for one.
    pub(super) selected: Option<JobId>,
}

impl Screen {
    /// The next job, and after the last one the first.
    pub(super) fn select_next(&mut self) {
        let next = self.index().map_or(0, |index| index + 1);
        self.selected = self.jobs.get(next).or(self.jobs.first()).map(|job| job.id);
    }

    /// The previous job, and before the first one the last.
    pub(super) fn select_previous(&mut self) {
        let previous = self.index().and_then(|index| index.checked_sub(1));
        let job = previous.and_then(|index| self.jobs.get(index)).or(self.jobs.last());
        self.selected = job.map(|job| job.id);
    }

    pub(super) fn selected_job(&self) -> Option<&JobInfo> {
        self.index().and_then(|index| self.jobs.get(index))
    }

    fn index(&self) -> Option<usize> {
        self.jobs.iter().position(|job| Some(job.id) == self.selected)
    }

    /// As many lines as there is room for.
    pub(super) fn lines(&self, width: usize, height: usize, color: bool) -> Vec<String> {
        let cut = |line: String| cut_off(line, Some(width));
        let stats = &self.stats;
        let mut lines = vec![
            paint(color, sgr::BOLD, &cut(self.title.clone())),
            cut(bar("nodes", self.used.nodes, self.down.nodes, self.all.nodes)),
            cut(bar("cores", self.used.cores, self.down.cores, self.all.cores)),
        ];
        if self.all.gpus > 0 {
            lines.push(cut(bar("gpus", self.used.gpus, self.down.gpus, self.all.gpus)));
        }
        lines.push(cut(format!(
            "{} pending  {} running  {} complete  {} failed",
            stats.pending, stats.running, stats.successful, stats.failed
        )));
        lines.push(cut(self.notice.clone().unwrap_or_default()));
        let queues = self.jobs.iter().any(|job| !job.str("queue").is_empty());
        let queue = |text: &str| if queues { format!("{text:>8.8} ") } else { String::new() };
        let heading = format!(
            "{:>13} {}{:>8} ST NTASKS NNODES RUNTIME NAME",
            "JOBID",
            queue("QUEUE"),
            "USER"
        );
        lines.push(format!("\x1b[7m{:<width$}\x1b[0m", cut(heading)));
        // The selected job stays in sight.
        let room = height.saturating_sub(lines.len());
        let selected = self.index();
        let first = selected.map_or(0, |index| (index + 1).saturating_sub(room));
        for (index, job) in self.jobs.iter().enumerate().skip(first).take(room) {
            let line = cut(format!(
                "{:>13.13} {}{:>8.8} {:>2} {:>6} {:>6} {:>7.7} {}",
                jobid::f58(job.id),
                queue(job.str("queue")),
                job.username(),
                job.status_abbreviation(),
                job.int("ntasks").unwrap_or_default(),
                job.int("nnodes").unwrap_or_default(),
                flux_protocol::fsd::python_format(job.runtime()),
                job.str("name"),
            ));
            lines.push(if Some(index) == selected {
                format!("\x1b[7m{line:<width$}\x1b[0m")
            } else {
                paint(color && job.is_instance(), sgr::BOLD_BLUE, &line)
            });
        }
        lines.truncate(height.max(1));
        lines
    }
}

/// `  nodes [||||||          3/4]`; what is down is marked at the end.
fn bar(name: &str, used: u64, down: u64, all: u64) -> String {
    let share = |part: u64| match all {
        0 => 0,
        all => usize::try_from(part * BAR as u64 / all).unwrap_or(BAR).min(BAR),
    };
    let down_width = share(down);
    let used_width = share(used).min(BAR - down_width);
    let free = BAR - used_width - down_width;
    format!(
        "{name:>7} [{}{}{}] {used}/{all}{}",
        "|".repeat(used_width),
        " ".repeat(free),
        "x".repeat(down_width),
        if down > 0 { format!(", {down} down") } else { String::new() }
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bars_show_what_is_used_and_down() {
        assert_eq!(bar("nodes", 2, 1, 4), "  nodes [||||||||||     xxxxx] 2/4, 1 down");
        assert_eq!(bar("cores", 0, 0, 0), "  cores [                    ] 0/0");
    }

    #[test]
    fn the_selected_job_is_always_in_sight() {
        let job = |id: u64| {
            JobInfo::new(json!({ "id": id, "state": 16, "name": format!("job{id}") })).unwrap()
        };
        let mut screen = Screen { jobs: (1..=50).map(job).collect(), ..Screen::default() };
        screen.select_previous();
        let lines = screen.lines(80, 12, false);
        assert_eq!(lines.len(), 12);
        assert!(lines[11].contains("job50"), "{lines:?}");
        screen.select_next();
        assert!(screen.lines(80, 12, false)[6].contains("job1"));
        assert_eq!(screen.selected_job().unwrap().str("name"), "job1");
    }

    #[test]
    fn the_selection_stays_with_its_job_and_goes_round() {
        let job = |id: u64| JobInfo::new(json!({ "id": id, "state": 16 })).unwrap();
        let mut screen = Screen { jobs: (1..=3).map(job).collect(), ..Screen::default() };
        assert!(screen.selected_job().is_none());
        screen.select_next();
        screen.select_next();
        assert_eq!(screen.selected_job().unwrap().id, screen.jobs[1].id);
        let second = screen.jobs[1].id;
        screen.jobs.remove(0);
        assert_eq!(screen.selected_job().unwrap().id, second);
        screen.select_previous();
        assert_eq!(screen.selected_job().unwrap().id, screen.jobs[1].id);
        screen.jobs.clear();
        screen.select_next();
        assert!(screen.selected_job().is_none());
    }
}
