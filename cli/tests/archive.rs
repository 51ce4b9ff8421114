//! Files in the key value store, on two brokers. The programs are those of the same build: run
//! `cargo build --workspace` first.
#![allow(clippy::unwrap_used, reason = "a test")]

mod script;

/// In a folder below the instance's, with modes that do not depend on who runs the test.
fn run(script: &str) -> String {
    script::run(&format!("umask 022\nmkdir work\ncd work\n{script}"))
}

/// A folder with a small file, a large one, one with a hole, an empty one, a link, and a folder
/// that nobody may write to.
const PROJECT: &str = "
mkdir -p project/closed
echo small >project/small
chmod 640 project/small
seq 1 5000 >project/large
truncate -s 1M project/holes
echo end >>project/holes
: >project/empty
ln -s small project/link
echo inside >project/closed/file
chmod 555 project/closed
";

#[test]
fn a_folder_is_archived_and_extracted_on_another_node() {
    let said = run(&format!(
        "{PROJECT}
flux archive create -n data --chunksize=4k project
flux archive list -n data --long
flux archive list -n data 'project/l*'
flux kvs get archive.data | tr '{{' '\\n' | grep -o '\"encoding\":\"[a-z0-9-]*\"'
mkdir copy
flux exec -r 1 flux archive extract --waitcreate -n data -C $PWD/copy
diff -r project copy/project && echo same
readlink copy/project/link
stat -c %a copy/project/small copy/project/closed
test $(du -k copy/project/holes | cut -f1) -lt 100 && echo sparse
flux archive extract -n data -C copy 'project/small' || echo kept
flux archive extract -n data -C copy --overwrite -v 'project/small'
flux archive extract -n data -t 'project/c*'
flux archive remove -n data
flux archive list -n data
flux kvs ls archive
chmod -R u+w .
"
    ));
    let expected = "f 0644        7 project/closed/file
d 0555        0 project/closed
f 0644        0 project/empty
f 0644  1048580 project/holes
f 0644    23893 project/large
l 0777        0 project/link
f 0640        6 project/small
d 0755        0 project
project/large
project/link
\"encoding\":\"utf-8\"
\"encoding\":\"blobvec\"
\"encoding\":\"blobvec\"
\"encoding\":\"utf-8\"
same
small
640
555
sparse
flux-archive: project/small: File exists
kept
project/small
project/closed/file
project/closed
flux-archive: KVS lookup archive.data: No such file or directory
";
    assert_eq!(said, expected);
}

#[test]
fn an_archive_is_replaced_or_appended_to_only_when_asked_for() {
    let said = run("
echo a >a
echo b >b
mkfifo pipe
flux archive create a && flux archive create b || echo $?
flux archive create --append b && flux archive list
flux archive create --overwrite ./b && flux archive list
flux archive create --overwrite --append b
flux archive create -n x pipe
flux archive create -n x ../work/a
flux archive create -n x missing
flux archive create -n x -C missing a
flux archive list -n x
flux archive list none
flux archive remove -n x
flux archive remove -n x -f && echo fine
flux archive extract -n x --waitcreate=100ms
flux archive create || true
");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines.get(..14),
        Some(
            &[
                "flux-archive: archive.main: key exists",
                "1",
                "a",
                "b",
                "b",
                "flux-archive: --overwrite and --append cannot be used together",
                "flux-archive: pipe: unsupported file type",
                "flux-archive: ../work/a: a path in an archive is relative, and without '..'",
                "flux-archive: missing: No such file or directory",
                "flux-archive: chdir missing: No such file or directory",
                "flux-archive: KVS lookup archive.x: No such file or directory",
                "flux-archive: No files matched pattern 'none'",
                "flux-archive: archive.x does not exist",
                "fine",
            ][..]
        ),
        "{said}"
    );
    assert_eq!(
        lines.get(14).copied(),
        Some("flux-archive: archive.x: key was not created within timeout window")
    );
    assert!(lines.iter().skip(15).any(|line| line.contains("Usage")), "{said}");
}

/// References that the garbage collection sees, in a job's own namespace or in the primary one.
#[test]
fn blobs_are_preserved_and_namespaces_kept_apart() {
    let said = run("
seq 1 5000 >large
flux archive create --preserve --chunksize=10k large
flux kvs ls archive.main_blobs
flux gc >/dev/null 2>&1
flux content dropcache
mkdir copy
flux archive extract -C copy && cmp large copy/large && echo intact
flux run flux archive list
flux run flux archive list --no-force-primary 2>&1 | grep -c 'No such file'
");
    assert_eq!(said, "0    1    2\nintact\nlarge\n1\n");
}

#[test]
fn a_mapped_file_is_served_from_the_file_while_it_stays_as_it_is() {
    let said = run("
seq 1 5000 >large
flux archive create --mmap --preserve large
flux exec -r 1 flux archive create --mmap large 2>&1 | head -n 1
flux archive create --mmap ./large
flux module stats --parse=mmap.tags.main content | grep -c work/large
mkdir one two three
flux exec -r 1 flux archive extract -C $PWD/one && cmp large one/large && echo same
flux exec -r 0-1 flux content dropcache
seq 1 4999 >large
flux archive extract -C two 2>&1 | grep -c 'mapped file .*/work/large has changed'
flux archive remove
seq 1 5000 >large
flux exec -r 0-1 flux content dropcache
flux module stats --parse=mmap content | tr -d ' \\n'
");
    assert_eq!(
        said,
        "flux-archive: --mmap cannot work with --preserve\n\
         flux-archive: --mmap only works on the rank 0 broker\n1\nsame\n\
         1\n{\"tags\":{},\"blobs\":0}"
    );
}

#[test]
fn scripts_that_call_archives_filemaps_go_on_working() {
    let said = run("
seq 1 5000 >file
mkdir copy
flux filemap map ./file 2>&1 | grep -o deprecated
flux module stats content | grep -c $PWD/file
flux filemap map --disable-mmap -T copied ./file 2>/dev/null
for tag in main copied; do
    flux filemap list -T $tag 2>/dev/null
    flux exec -r 1 flux filemap get -T $tag -C $PWD/copy 2>/dev/null
    cmp file copy/file && rm copy/file
    flux filemap unmap -T $tag 2>/dev/null
done
flux module stats content | grep -c $PWD/file
flux kvs ls archive
");
    assert_eq!(said, "deprecated\n1\nfile\nfile\n0\n");
}
