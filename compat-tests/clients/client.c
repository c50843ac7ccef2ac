/* The official C client: the everyday operations against the server in argv[1]. Ends at the first failure. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int connected, events, last_type;
static char last_path[256];
static int passed;

#define CHECK(condition)                                                                 \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            printf("FAILED %s:%d: %s\nC client: %d passed, 1 failed\n", __FILE__, __LINE__, #condition, passed); \
            exit(1);                                                                     \
        }                                                                                \
        passed++;                                                                        \
    } while (0)

static void watcher(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh;
    (void)context;
    pthread_mutex_lock(&lock);
    if (type == ZOO_SESSION_EVENT) {
        connected = state == ZOO_CONNECTED_STATE;
    } else {
        events++;
        last_type = type;
        snprintf(last_path, sizeof last_path, "%s", path);
    }
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* Waits until *value is at least `wanted`; 20 seconds at most. */
static int await(int *value, int wanted) {
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 20;
    pthread_mutex_lock(&lock);
    int result = 0;
    while (*value < wanted && result == 0) {
        result = pthread_cond_timedwait(&changed, &lock, &deadline);
    }
    pthread_mutex_unlock(&lock);
    return result == 0;
}

static void authenticated(int rc, const void *data) {
    (void)data;
    pthread_mutex_lock(&lock);
    events = rc == ZOK ? 1000 : -1000;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* In a process of its own, which ends without closing: leaves a session with an ephemeral, and says whose it is. */
static clientid_t leave_a_session(const char *hosts) {
    int ends[2];
    clientid_t id;
    memset(&id, 0, sizeof id);
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        zhandle_t *zh = zookeeper_init(hosts, watcher, 8000, NULL, NULL, 0);
        if (zh != NULL && await(&connected, 1) &&
            zoo_create(zh, "/left", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0) == ZOK) {
            id = *zoo_client_id(zh);
        }
        _exit(write(ends[1], &id, sizeof id) == (ssize_t)sizeof id ? 0 : 1);
    }
    int status = -1;
    CHECK(child > 0 && read(ends[0], &id, sizeof id) == (ssize_t)sizeof id);
    CHECK(waitpid(child, &status, 0) == child && status == 0 && id.client_id != 0);
    close(ends[0]);
    close(ends[1]);
    return id;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: client host:port\n");
        return 2;
    }
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    clientid_t id = leave_a_session(argv[1]);
    zhandle_t *zh = zookeeper_init(argv[1], watcher, 8000, NULL, NULL, 0);
    CHECK(zh != NULL);
    CHECK(await(&connected, 1));

    char name[256], data[256];
    int length = sizeof data;
    struct Stat stat;
    CHECK(zoo_create(zh, "/c", "one", 3, &ZOO_OPEN_ACL_UNSAFE, 0, name, sizeof name) == ZOK);
    CHECK(strcmp(name, "/c") == 0);
    CHECK(zoo_create2(zh, "/c/two", "2", 1, &ZOO_OPEN_ACL_UNSAFE, 0, name, sizeof name, &stat) == ZOK && stat.version == 0);
    CHECK(zoo_create(zh, "/c", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, 0, NULL, 0) == ZNODEEXISTS);
    CHECK(zoo_get(zh, "/c", 0, data, &length, &stat) == ZOK && length == 3 && memcmp(data, "one", 3) == 0);
    CHECK(zoo_set2(zh, "/c", "new", 3, 0, &stat) == ZOK && stat.version == 1);
    CHECK(zoo_set(zh, "/c", "new", 3, 0) == ZBADVERSION);
    CHECK(zoo_exists(zh, "/missing", 0, &stat) == ZNONODE);
    CHECK(zoo_delete(zh, "/c", -1) == ZNOTEMPTY);

    CHECK(zoo_create(zh, "/c/s-", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, ZOO_SEQUENCE, name, sizeof name) == ZOK);
    CHECK(strcmp(name, "/c/s-0000000001") == 0);
    CHECK(zoo_create(zh, "/c/e", NULL, -1, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, name, sizeof name) == ZOK);
    CHECK(zoo_exists(zh, "/c/e", 0, &stat) == ZOK && stat.ephemeralOwner == zoo_client_id(zh)->client_id);
    struct String_vector names;
    CHECK(zoo_get_children2(zh, "/c", 0, &names, &stat) == ZOK && names.count == 3 && stat.numChildren == 3);
    deallocate_String_vector(&names);

    length = sizeof data;
    CHECK(zoo_wget(zh, "/c", watcher, NULL, data, &length, &stat) == ZOK);
    CHECK(zoo_wget_children(zh, "/c", watcher, NULL, &names) == ZOK);
    deallocate_String_vector(&names);
    CHECK(zoo_set(zh, "/c", "x", 1, -1) == ZOK);
    CHECK(await(&events, 1) && last_type == ZOO_CHANGED_EVENT && strcmp(last_path, "/c") == 0);
    CHECK(zoo_delete(zh, "/c/s-0000000001", -1) == ZOK);
    CHECK(await(&events, 2) && last_type == ZOO_CHILD_EVENT);

    zoo_op_t ops[4];
    zoo_op_result_t results[4];
    zoo_create_op_init(&ops[0], "/c/m", "m", 1, &ZOO_OPEN_ACL_UNSAFE, 0, name, sizeof name);
    zoo_check_op_init(&ops[1], "/c/m", 0);
    zoo_set_op_init(&ops[2], "/c/m", "n", 1, 0, &stat);
    zoo_delete_op_init(&ops[3], "/c/m", 1);
    CHECK(zoo_multi(zh, 4, ops, results) == ZOK && results[3].err == ZOK);
    zoo_check_op_init(&ops[1], "/c/m", 7);
    CHECK(zoo_multi(zh, 4, ops, results) == ZBADVERSION);
    CHECK(results[1].err == ZBADVERSION && results[2].err == ZRUNTIMEINCONSISTENCY);
    CHECK(zoo_exists(zh, "/c/m", 0, &stat) == ZNONODE);

    events = 0;
    CHECK(zoo_add_auth(zh, "digest", "c:secret", 8, authenticated, NULL) == ZOK);
    CHECK(await(&events, 1000));
    CHECK(zoo_create(zh, "/c/mine", NULL, -1, &ZOO_CREATOR_ALL_ACL, 0, NULL, 0) == ZOK);
    struct ACL_vector acl;
    CHECK(zoo_get_acl(zh, "/c/mine", &acl, &stat) == ZOK && acl.count == 1 && strcmp(acl.data[0].id.scheme, "digest") == 0);
    deallocate_ACL_vector(&acl);
    CHECK(zoo_set_acl(zh, "/c/mine", 0, &ZOO_READ_ACL_UNSAFE) == ZOK);
    length = sizeof data;
    CHECK(zoo_set(zh, "/c/mine", "x", 1, -1) == ZNOAUTH);

    /* The session that another process left, taken up with its id and password: it keeps its ephemeral. */
    connected = 0;
    zhandle_t *again = zookeeper_init(argv[1], watcher, 8000, &id, NULL, 0);
    CHECK(again != NULL && await(&connected, 1));
    CHECK(zoo_client_id(again)->client_id == id.client_id);
    CHECK(zoo_exists(again, "/left", 0, &stat) == ZOK && stat.ephemeralOwner == id.client_id);
    CHECK(zookeeper_close(again) == ZOK);
    CHECK(zoo_exists(zh, "/left", 0, &stat) == ZNONODE);
    zookeeper_close(zh);

    connected = 0;
    zh = zookeeper_init(argv[1], watcher, 8000, NULL, NULL, 0);
    CHECK(zh != NULL && await(&connected, 1));
    CHECK(zoo_exists(zh, "/c/e", 0, &stat) == ZNONODE);
    CHECK(zookeeper_close(zh) == ZOK);
    printf("C client: %d passed, 0 failed\n", passed);
    return 0;
}
