/* A launcher's library, whose processes meet in a folder: LAUNCH_DIR, LAUNCH_RANK, LAUNCH_SIZE.
 * libpmi.so as it stands, libpmi2.so with -DPMI2. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, FAIL = -1, ERR_INVALID_KEY = 4 };

static int number(const char *name) {
    const char *value = getenv(name);
    return value ? atoi(value) : -1;
}

static char *path(const char *kind, const char *name) {
    static char buffer[4096];
    snprintf(buffer, sizeof buffer, "%s/%s.%s", getenv("LAUNCH_DIR"), kind, name);
    return buffer;
}

static int begin(int *rank, int *size) {
    *rank = number("LAUNCH_RANK");
    *size = number("LAUNCH_SIZE");
    return *rank < 0 || *size < 1 ? FAIL : SUCCESS;
}

static int put(const char *key, const char *value) {
    FILE *file = fopen(path("key", key), "w");
    if (!file) return FAIL;
    fputs(value, file);
    return fclose(file) ? FAIL : SUCCESS;
}

static int get(const char *key, char *value, int size) {
    FILE *file = fopen(path("key", key), "r");
    if (!file) return ERR_INVALID_KEY;
    size_t read = fread(value, 1, size - 1, file);
    value[read] = '\0';
    fclose(file);
    return SUCCESS;
}

static int barrier(void) {
    static int turn;
    char name[64];
    turn++;
    snprintf(name, sizeof name, "%d.%d", turn, number("LAUNCH_RANK"));
    FILE *mine = fopen(path("barrier", name), "w");
    if (!mine || fclose(mine)) return FAIL;
    for (int rank = 0; rank < number("LAUNCH_SIZE"); rank++) {
        snprintf(name, sizeof name, "%d.%d", turn, rank);
        while (access(path("barrier", name), F_OK)) usleep(1000);
    }
    return SUCCESS;
}

static int name(char *value, int size) {
    snprintf(value, size, "launch");
    return SUCCESS;
}

#ifdef PMI2
int PMI2_Init(int *spawned, int *size, int *rank, int *appnum) {
    *spawned = *appnum = 0;
    return begin(rank, size);
}
int PMI2_Finalize(void) { return SUCCESS; }
int PMI2_Abort(int all, const char *text) { fputs(text, stderr); exit(all); }
int PMI2_Job_GetId(char *value, int size) { return name(value, size); }
int PMI2_KVS_Put(const char *key, const char *value) { return put(key, value); }
int PMI2_KVS_Fence(void) { return barrier(); }
int PMI2_KVS_Get(const char *job, int from, const char *key, char *value, int size, int *length) {
    int failed = get(key, value, size);
    *length = failed ? 0 : (int)strlen(value);
    return failed;
}
int PMI2_Info_GetJobAttr(const char *key, char *value, int size, int *found) {
    *found = 0;
    return SUCCESS;
}
#else
int PMI_Init(int *spawned) {
    int rank, size;
    *spawned = 0;
    return begin(&rank, &size);
}
int PMI_Finalize(void) { return SUCCESS; }
int PMI_Get_size(int *size) { int rank; return begin(&rank, size); }
int PMI_Get_rank(int *rank) { int size; return begin(rank, &size); }
int PMI_Barrier(void) { return barrier(); }
int PMI_KVS_Get_my_name(char *value, int size) { return name(value, size); }
int PMI_KVS_Put(const char *space, const char *key, const char *value) { return put(key, value); }
int PMI_KVS_Commit(const char *space) { return SUCCESS; }
int PMI_KVS_Get(const char *space, const char *key, char *value, int size) {
    return get(key, value, size);
}
int PMI_Abort(int code, const char *text) { fputs(text, stderr); exit(code); }
#endif
