//! `libpmi.so`, as C programs use it.
#![allow(clippy::unwrap_used)]

#[path = "../../programs/mod.rs"]
mod programs;

use programs::{Program, built, said};

/// Load the library as Open MPI does, and look up names in it.
const HEAD: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static void *library;
/* C does not say which argument of printf is worked out first. */
#define SHOW(value) printf(" %d", (value))
__attribute__((unused)) static void *find(const char *name) {
    void *f = dlsym(library, name);
    if (!f) { printf("%s\n", dlerror()); exit(9); }
    return f;
}
#define PMI(name, args) int (*name) args = find("PMI_" #name)
static void load(void) {
    library = dlopen(getenv("FLUX_PMI_LIBRARY_PATH"), RTLD_NOW | RTLD_GLOBAL);
    if (!library) { printf("%s\n", dlerror()); exit(9); }
}
"#;

fn program(main: &str) -> Program {
    Program::compile(&format!("{HEAD}int main(int argc, char **argv) {{ load();\n{main}\n}}\n"))
}

#[test]
fn tasks_of_a_job_get_what_the_others_have_put() {
    let exchange = program(
        r#"
        PMI(Init, (int *)); PMI(Get_rank, (int *)); PMI(Get_size, (int *));
        PMI(Get_universe_size, (int *)); PMI(Get_appnum, (int *)); PMI(Barrier, (void));
        PMI(KVS_Get_my_name, (char *, int)); PMI(KVS_Commit, (const char *));
        PMI(KVS_Put, (const char *, const char *, const char *));
        PMI(KVS_Get, (const char *, const char *, char *, int));
        PMI(Get_clique_size, (int *)); PMI(Get_clique_ranks, (int *, int)); PMI(Finalize, (void));
        int spawned = 7, rank, size, universe, appnum = 7, n, ranks[2];
        char name[64], key[64], value[64], expected[64];
        int failed = Init(&spawned) | Get_rank(&rank) | Get_size(&size)
            | Get_universe_size(&universe) | Get_appnum(&appnum)
            | KVS_Get_my_name(name, sizeof name) | Get_clique_size(&n);
        sprintf(key, "key-%d", rank);
        sprintf(value, "a value = %d", rank);
        failed |= KVS_Put(name, key, value) | KVS_Commit(name) | Barrier();
        for (int i = 0; i < size; i++) {
            sprintf(key, "key-%d", i);
            sprintf(expected, "a value = %d", i);
            if (KVS_Get(name, key, value, sizeof value) || strcmp(value, expected)) failed = 99;
        }
        failed |= Get_clique_ranks(ranks, 2) | Finalize();
        printf("%d of %d in %d: %d; spawned %d, app %d, with %d: %d and %d; name %d\n", rank, size,
            universe, failed, spawned, appnum, n, ranks[0], ranks[1],
            !strcmp(name, getenv("FLUX_JOB_ID")));
        return failed != 0;"#,
    );
    let text = exchange.in_an_instance("flux run -N2 --tasks-per-node=2 ./prog; echo code $?");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let line =
        |rank, with| format!("{rank} of 4 in 4: 0; spawned 0, app 0, with 2: {with}; name 1");
    let all = [line(0, "0 and 1"), line(1, "0 and 1"), line(2, "2 and 3"), line(3, "2 and 3")];
    assert_eq!(lines, [&all[0], &all[1], &all[2], &all[3], "code 0"]);
}

#[test]
fn errors_have_the_codes_of_pmi() {
    let wrong = program(
        r#"
        PMI(Init, (int *)); PMI(Initialized, (int *)); PMI(Get_rank, (int *));
        PMI(KVS_Get_my_name, (char *, int)); PMI(KVS_Get_key_length_max, (int *));
        PMI(KVS_Put, (const char *, const char *, const char *)); PMI(Barrier, (void));
        PMI(KVS_Get, (const char *, const char *, char *, int)); PMI(KVS_Commit, (const char *));
        PMI(Get_clique_ranks, (int *, int)); PMI(Publish_name, (const char *, const char *));
        PMI(Get_id, (char *, int)); PMI(Finalize, (void));
        int n = 5; char name[64], value[64], large[2000];
        memset(large, 'x', 1999); large[1999] = 0;
        printf("before:");
        SHOW(Get_rank(&n)); SHOW(Barrier()); SHOW(Finalize()); SHOW(KVS_Get_my_name(name, 64));
        SHOW(Initialized(NULL));
        printf("\ninit:");
        SHOW(Init(NULL)); SHOW(Init(NULL)); SHOW(Initialized(&n)); SHOW(n);
        printf("\narguments:");
        SHOW(Get_rank(NULL)); SHOW(KVS_Get_my_name(NULL, 64)); SHOW(KVS_Get_my_name(name, 0));
        SHOW(KVS_Get_my_name(name, 2)); SHOW(KVS_Commit(NULL));
        KVS_Get_key_length_max(&n);
        Get_id(name, 64);
        printf("\nput:");
        SHOW(KVS_Put(name, NULL, "v")); SHOW(KVS_Put(name, "k", "v"));
        SHOW(KVS_Put(name, "a b", "v")); SHOW(KVS_Put(name, "k", "a\nb"));
        SHOW(KVS_Put(name, large, "v")); SHOW(KVS_Put(name, "k", large));
        printf("\nget:");
        SHOW(KVS_Get(name, "none", value, 64)); SHOW(KVS_Get(name, "k", value, 1));
        SHOW(KVS_Get(name, "k", NULL, 64)); SHOW(KVS_Get(name, "k", value, 2));
        printf(" %s\nothers:", value);
        SHOW(Get_clique_ranks(NULL, 1)); SHOW(Get_clique_ranks(&n, 0));
        SHOW(Publish_name("a", "b")); SHOW(n);
        printf("\nend:");
        SHOW(Finalize()); SHOW(Finalize());
        printf("\n");
        return 0;"#,
    );
    let text = wrong.in_an_instance("flux run ./prog");
    let expected = "before: 1 1 1 1 3\ninit: 0 1 0 1\narguments: 3 3 3 -1 3\nput: 3 0 4 6 5 7\n\
                    get: 4 -1 3 0 v\nothers: 3 13 -1 64\nend: 0 1\n";
    assert_eq!(text, expected);
}

#[test]
fn a_process_without_a_launcher_is_told_and_can_go_on() {
    let alone = program(
        r#"
        PMI(Init, (int *)); PMI(Initialized, (int *)); int n = 5;
        SHOW(Init(&n)); SHOW(Initialized(&n)); SHOW(n);
        fflush(stdout);
        if (argc > 1) {
            PMI(Abort, (int, const char *));
            Abort(atoi(argv[1]), argv[2]);
        }
        return 0;"#,
    );
    assert_eq!(said(&alone.alone("libpmi.so", &[])), " -1 0 0");
    let output = alone.alone("libpmi.so", &["3", "it is over"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "PMI_Abort: (-1) it is over\n");
}

#[test]
fn a_task_that_gives_up_ends_the_others() {
    let abort = program(
        r#"
        PMI(Init, (int *)); PMI(Get_rank, (int *)); PMI(Barrier, (void));
        PMI(Abort, (int, const char *));
        int rank;
        Init(NULL); Get_rank(&rank);
        if (rank == 2) Abort(4, "two\nlines");
        return Barrier();"#,
    );
    let text = abort.in_an_instance("flux run -N2 --tasks-per-node=2 ./prog; echo code $?");
    assert!(text.contains("PMI_Abort: two lines"), "{text}");
    assert!(!text.contains("code 0"), "{text}");
}

#[test]
fn tasks_are_told_where_the_library_is() {
    let none = program("return 0;");
    let text = none.in_an_instance(
        "flux config builtin pmi_library_path\n\
         flux run printenv FLUX_PMI_LIBRARY_PATH LD_LIBRARY_PATH\n\
         flux run --env=LD_LIBRARY_PATH=/a printenv LD_LIBRARY_PATH\n\
         flux run -o pmi=off printenv FLUX_PMI_LIBRARY_PATH LD_LIBRARY_PATH PMI_FD || echo off\n",
    );
    let dir = built().join("deps");
    let dir = dir.to_str().unwrap();
    let expected = format!("{dir}/libpmi.so\n{dir}/libpmi.so\n{dir}\n{dir}:/a\n");
    assert!(text.starts_with(&expected) && text.ends_with("off\n"), "{text}");
    assert!(built().join("deps/libpmi.so").is_file());
}

#[test]
fn the_command_tries_the_library() {
    let none = program("return 0;");
    let text = none.in_an_instance(
        r#"tasks() { flux run -N2 --tasks-per-node=2 "$FLUX" pmi --method=libpmi "$@"; echo code $?; }
        tasks exchange
        tasks -v --timeout=1m get --ranks=3 PMI_process_mapping
        flux run "$FLUX" pmi --method=libpmi --libpmi-noflux barrier
        flux run "$FLUX" pmi --method=libpmi:/nonexistent barrier
        flux run "$FLUX" pmi --method=libpmi get nothing
        tasks barrier --test-abort=1
        flux pmi -v barrier"#,
    );
    for part in [
        "completed pmi exchange on 4 tasks in ",
        "libpmi: initialize: rank=3 size=4 name=",
        "libpmi: get key=PMI_process_mapping value=(vector,(0,2,2)): success\n",
        "\n(vector,(0,2,2))\n",
        "flux-pmi: libpmi.so: this is Flux's own library (",
        "flux-pmi: /nonexistent: cannot open shared object file",
        "flux-pmi: get nothing: invalid key argument",
        "PMI_Abort: flux-pmi: rank 1 is aborting",
        "simple: PMI_FD not found in environ\nflux-pmi-client: trying 'libpmi2'\n",
        "single: selected\nsingle: initialize: rank=0 size=1 name=single: success\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
