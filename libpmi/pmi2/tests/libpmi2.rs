//! `libpmi2.so`, as C programs use it.
#![allow(clippy::unwrap_used)]

#[path = "../../programs/mod.rs"]
mod programs;

use programs::{Program, said};

/// Load the library by its name, as the dynamic linker finds it, or by the path in the environment.
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
#define PMI2(name, args) int (*name) args = find("PMI2_" #name)
static void load(void) {
    library = dlopen("libpmi2.so", RTLD_NOW | RTLD_GLOBAL);
    if (!library) library = dlopen(getenv("FLUX_PMI_LIBRARY_PATH"), RTLD_NOW | RTLD_GLOBAL);
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
        PMI2(Init, (int *, int *, int *, int *)); PMI2(Job_GetId, (char *, int));
        PMI2(KVS_Put, (const char *, const char *)); PMI2(KVS_Fence, (void));
        PMI2(KVS_Get, (const char *, int, const char *, char *, int, int *));
        PMI2(Info_GetJobAttr, (const char *, char *, int, int *)); PMI2(Initialized, (void));
        PMI2(Info_PutNodeAttr, (const char *, const char *)); PMI2(Finalize, (void));
        PMI2(Info_GetNodeAttr, (const char *, char *, int, int *, int));
        int spawned = 7, rank, size, appnum = 7, n, found[3];
        char id[64], key[64], value[64], expected[64], map[64], universe[64], node[64];
        int failed = Init(&spawned, &size, &rank, &appnum) | Job_GetId(id, sizeof id);
        sprintf(key, "key-%d", rank);
        sprintf(value, "a value = %d", rank);
        failed |= KVS_Put(key, value);
        if (rank % 2 == 0) failed |= Info_PutNodeAttr("leader", key);
        failed |= Info_GetNodeAttr("leader", node, sizeof node, &found[0], 1);
        failed |= KVS_Fence();
        for (int i = 0; i < size; i++) {
            sprintf(key, "key-%d", i);
            sprintf(expected, "a value = %d", i);
            if (KVS_Get(i % 2 ? id : NULL, i, key, value, sizeof value, &n)
                || strcmp(value, expected) || n != strlen(value)) failed = 99;
        }
        failed |= Info_GetJobAttr("PMI_process_mapping", map, sizeof map, &found[1])
            | Info_GetJobAttr("universeSize", universe, sizeof universe, &found[2]);
        printf("%d of %d in %s: %d; spawned %d, app %d, found %d %d %d: %s %s; id %d, %d", rank,
            size, universe, failed, spawned, appnum, found[0], found[1], found[2], node, map,
            !strcmp(id, getenv("FLUX_JOB_ID")), Initialized());
        failed |= Finalize();
        printf(" %d\n", Initialized());
        return failed != 0;"#,
    );
    let text = exchange.in_an_instance("flux run -N2 --tasks-per-node=2 ./prog; echo code $?");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let line = |rank: u32| {
        format!(
            "{rank} of 4 in 4: 0; spawned 0, app 0, found 1 1 1: key-{} (vector,(0,2,2)); id 1, 1 0",
            rank / 2 * 2
        )
    };
    let all = [line(0), line(1), line(2), line(3)];
    assert_eq!(lines, [&all[0], &all[1], &all[2], &all[3], "code 0"]);
}

#[test]
fn errors_have_the_codes_of_pmi() {
    let wrong = program(
        r#"
        PMI2(Init, (int *, int *, int *, int *)); PMI2(Job_GetId, (char *, int));
        PMI2(KVS_Put, (const char *, const char *)); PMI2(KVS_Fence, (void));
        PMI2(KVS_Get, (const char *, int, const char *, char *, int, int *));
        PMI2(Info_GetJobAttr, (const char *, char *, int, int *)); PMI2(Finalize, (void));
        PMI2(Info_PutNodeAttr, (const char *, const char *));
        PMI2(Info_GetNodeAttr, (const char *, char *, int, int *, int)); PMI2(Job_GetRank, (int *));
        int n = 5, found = 5; char id[64], value[64], large[2000];
        memset(large, 'x', 1999); large[1999] = 0;
        printf("before:");
        SHOW(KVS_Fence()); SHOW(Finalize()); SHOW(Job_GetId(id, 64)); SHOW(KVS_Put("k", "v"));
        printf("\ninit:");
        SHOW(Init(NULL, NULL, NULL, NULL)); SHOW(Init(NULL, NULL, NULL, NULL));
        printf("\nid:");
        SHOW(Job_GetId(NULL, 64)); SHOW(Job_GetId(id, 2)); SHOW(Job_GetRank(&n));
        printf("\nput:");
        SHOW(KVS_Put(NULL, "v")); SHOW(KVS_Put("k", "v")); SHOW(KVS_Put(large, "v"));
        SHOW(KVS_Put("k", large));
        printf("\nget:");
        SHOW(KVS_Get(NULL, 0, "none", value, 64, &n)); SHOW(n);
        SHOW(KVS_Get(NULL, 0, "k", value, 1, &n)); SHOW(KVS_Get(NULL, 0, "k", NULL, 64, &n));
        printf("\njob:");
        SHOW(Info_GetJobAttr("none", value, 64, &found)); SHOW(found);
        SHOW(Info_GetJobAttr(NULL, value, 64, &found));
        SHOW(Info_GetJobAttr("universeSize", value, 1, NULL));
        found = 5;
        printf("\nnode:");
        SHOW(Info_GetNodeAttr("none", value, 64, &found, 0)); SHOW(found);
        SHOW(Info_GetNodeAttr("none", value, 64, NULL, 0));
        SHOW(Info_GetNodeAttr(large, value, 64, NULL, 0)); SHOW(Info_PutNodeAttr("a", NULL));
        printf("\nend:");
        SHOW(Finalize()); SHOW(Finalize());
        printf("\n");
        return 0;"#,
    );
    let text = wrong.in_an_instance("flux run ./prog");
    let expected = "before: 1 1 1 1\ninit: 0 1\nid: 10 10 -1\nput: 3 0 5 7\nget: 4 0 -1 3\n\
                    job: 4 0 3 7\nnode: 0 0 4 5 3\nend: 0 1\n";
    assert_eq!(text, expected);
}

#[test]
fn a_process_without_a_launcher_is_told_and_can_go_on() {
    let alone = program(
        r#"
        PMI2(Init, (int *, int *, int *, int *)); PMI2(Initialized, (void));
        SHOW(Init(NULL, NULL, NULL, NULL)); SHOW(Initialized());
        fflush(stdout);
        if (argc > 1) {
            PMI2(Abort, (int, const char *));
            Abort(1, NULL);
        }
        return 0;"#,
    );
    assert_eq!(said(&alone.alone("libpmi2.so", &[])), " -1 0");
    let output = alone.alone("libpmi2.so", &["abort"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "PMI2_Abort: (-1) NULL\n");
}

#[test]
fn the_command_tries_the_library() {
    let none = program("return 0;");
    let text = none.in_an_instance(
        r#"tasks() { flux run -N2 --tasks-per-node=2 "$FLUX" pmi --method=libpmi2 "$@"; echo code $?; }
        tasks exchange --count=2
        tasks --libpmi2-cray -v exchange
        tasks get PMI_process_mapping flux.taskmap
        tasks -v get PMI_process_mapping
        flux run "$FLUX" pmi --method=libpmi2 --libpmi-noflux barrier
        flux run "$FLUX" pmi --method=libpmi2 --libpmi2-cray get flux.taskmap
        tasks barrier --test-abort=1"#,
    );
    for part in [
        "completed pmi exchange on 4 tasks in ",
        "libpmi2.so (cray quirks enabled)\n",
        "libpmi2: initialize: rank=3 size=4 name=",
        "libpmi2: get key=PMI_process_mapping value=(vector,(0,2,2)): success\n",
        "\n(vector,(0,2,2))\n{\"version\":1,\"map\":[[0,2,2,1]]}\n",
        "flux-pmi: libpmi2.so: this is Flux's own library (",
        "flux-pmi: get flux.taskmap: invalid key argument",
        "PMI_Abort: flux-pmi: rank 1 is aborting",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(text.matches("completed pmi exchange").count(), 3, "{text}");
}
