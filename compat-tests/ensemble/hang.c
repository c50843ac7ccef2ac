/* A disk that hangs: while the file that HANG_WHILE names is there, no sync of this process comes back. For LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int sync_with(const char *name, int fd) {
    const char *file = getenv("HANG_WHILE");
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    while (file != NULL && access(file, F_OK) == 0) {
        usleep(5000);
    }
    return real(fd);
}

int fdatasync(int fd) {
    return sync_with("fdatasync", fd);
}

int fsync(int fd) {
    return sync_with("fsync", fd);
}
