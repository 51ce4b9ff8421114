//! Submission commands and nested instances, in real instances of several processes: build the
//! workspace first.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// Run a script, in which `flux` is this build's, as the initial program of an instance. Returns
/// what it has printed below each `== HEADING`, both streams together.
fn sections(size: &str, script: &str, dir: &Path) -> BTreeMap<String, String> {
    let flux = env!("CARGO_BIN_EXE_flux");
    let broker = Path::new(flux).with_file_name("flux-broker");
    assert!(broker.is_file(), "{} is missing: build the workspace first", broker.display());
    let path = dir.join("script.sh");
    std::fs::write(&path, format!("exec 2>&1\n{script}")).unwrap();
    let output = Command::new(flux)
        .args(["start", "-s", size, "sh"])
        .arg(&path)
        .current_dir(dir)
        .stdin(Stdio::null())
        .env("SHELL", "/bin/sh")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let mut sections = BTreeMap::new();
    let mut heading = String::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.strip_prefix("== ") {
            Some(new) => heading = new.to_owned(),
            None => {
                let text: &mut String = sections.entry(heading.clone()).or_default();
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    sections
}

#[test]
fn batch_job_is_an_instance_with_the_resources_of_its_job() {
    let dir = tempfile::tempdir().unwrap();
    let script = r##"
cat > batch.sh <<'END'
#!/bin/sh
# flux: -N2 --output=batch.out
# flux: --conf=x.y=1
flux getattr instance-level
flux getattr jobid
test "$(flux getattr parent-uri)" = "$OUTER" && echo parent
flux getattr size
flux resource info
flux config get x.y
flux run printenv FLUX_JOB_ID_PATH | grep -c "^/.*/."
sleep inf
END
export OUTER=$FLUX_URI
echo "== reached"
id=$(flux batch -n2 batch.sh)
uri=$(flux uri --wait $id)
until flux proxy $id flux resource info 2>/dev/null; do sleep 0.2; done
until grep -q '^1$' batch.out && test $(wc -l <batch.out) -ge 7; do sleep 0.2; done
flux shutdown --quiet $id >/dev/null 2>&1
flux job status $id 2>/dev/null; echo $?
echo "== batch"
sed "s/$id/ID/" batch.out
echo "== alloc"
flux alloc -n1 flux alloc -n1 flux getattr instance-level; echo $?
flux alloc -n1 false; echo $?
"##;
    let said = sections("2", script, dir.path());
    let section = |name: &str| said.get(name).map_or("", String::as_str);
    assert_eq!(section("reached"), "2 Nodes, 2 Cores, 0 GPUs\n129\n");
    let batch: Vec<&str> = section("batch").lines().take(7).collect();
    assert_eq!(batch, ["1", "ID", "parent", "2", "2 Nodes, 2 Cores, 0 GPUs", "1", "1"]);
    assert!(section("alloc").starts_with("2\n0\n"), "{}", section("alloc"));
    assert!(section("alloc").trim_end().ends_with('1'), "{}", section("alloc"));
}

/// Plugins judge requests side by side; the ids, and with them the turn of jobs of one urgency,
/// are in the order in which the requests came.
#[test]
fn ids_ascend_in_the_order_of_submission() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"
flux submit --cc=1-1500 --urgency=hold true > ids
echo "== ids"
flux job id --to=dec < ids
echo "== end"
flux cancel --all --quiet
"#;
    let sections = sections("2", script, dir.path());
    let ids: Vec<u64> = sections["ids"].lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(ids.len(), 1500);
    assert!(ids.is_sorted(), "{ids:?}");
}
