/* The official C client as it was before ZOOKEEPER-1105: it closes without waiting for the server's answer. Leaves an ephemeral
   argv[2]-mine and znodes argv[2]-first and -second at the server argv[1], with a read between them. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>
#include <zookeeper/zookeeper.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int connected;

/* What the library sends goes through here. Behind its close request the process ends, as the older library closed the socket. */
ssize_t send(int fd, const void *data, size_t size, int flags) {
    ssize_t (*real)(int, const void *, size_t, int) = (ssize_t(*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
    ssize_t sent = real(fd, data, size, flags);
    int32_t op;
    if (sent == (ssize_t)size && size >= 8) {
        memcpy(&op, (const char *)data + size - 4, sizeof op);
        if ((int32_t)ntohl(op) == -11 && size <= 12) {
            _exit(0);
        }
    }
    return sent;
}

static void watcher(zhandle_t *zh, int type, int state, const char *path, void *context) {
    (void)zh, (void)path, (void)context;
    pthread_mutex_lock(&lock);
    connected = type == ZOO_SESSION_EVENT && state == ZOO_CONNECTED_STATE;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void on_string(int rc, const char *value, const void *data) {
    (void)rc, (void)value, (void)data;
}

static void on_data(int rc, const char *value, int size, const struct Stat *stat, const void *data) {
    (void)rc, (void)value, (void)size, (void)stat, (void)data;
}

int main(int argc, char **argv) {
    char path[256];
    if (argc < 3) {
        return 2;
    }
    zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
    zhandle_t *zh = zookeeper_init(argv[1], watcher, 10000, NULL, NULL, 0);
    pthread_mutex_lock(&lock);
    while (zh != NULL && !connected) {
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    snprintf(path, sizeof path, "%s-mine", argv[2]);
    if (zh == NULL || zoo_create(zh, path, NULL, -1, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL, NULL, 0) != ZOK) {
        return 3;
    }
    snprintf(path, sizeof path, "%s-first", argv[2]);
    int rc = zoo_acreate(zh, path, NULL, -1, &ZOO_OPEN_ACL_UNSAFE, 0, on_string, NULL);
    rc |= zoo_aget(zh, "/", 0, on_data, NULL);
    snprintf(path, sizeof path, "%s-second", argv[2]);
    rc |= zoo_acreate(zh, path, NULL, -1, &ZOO_OPEN_ACL_UNSAFE, 0, on_string, NULL);
    if (rc != ZOK) {
        return 4;
    }
    zookeeper_close(zh);
    /* The library has not sent what was expected. */
    return 5;
}
