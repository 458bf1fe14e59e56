/* Fails one call of the operating system on a file below a folder: preloaded before a process that arms it.
 *
 * Calls on files below FAULT_ROOT are counted from `fault_arm` on; the one of the armed number fails with the given
 * error. Everything else goes through. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 4096

static atomic_long seen, target;
static atomic_int full;
static int error_number, short_write;
static char root[PATH_MAX];
static char name_of_failed[256];
static atomic_uchar ours[FILES];

void fault_arm(const char *folder, long number, int error, int cut) {
    snprintf(root, sizeof root, "%s", folder);
    error_number = error;
    short_write = cut;
    name_of_failed[0] = 0;
    atomic_store(&full, 0);
    atomic_store(&seen, 0);
    atomic_store(&target, number);
}

long fault_seen(void) { return atomic_load(&seen); }
const char *fault_name(void) { return name_of_failed; }

static int fails(const char *call, const char *path) {
    if (atomic_load(&target) < 0 || !root[0]) return 0;
    long number = atomic_fetch_add(&seen, 1) + 1;
    if (number != atomic_load(&target)) return 0;
    snprintf(name_of_failed, sizeof name_of_failed, "%s %s", call, path ? path : "");
    errno = error_number;
    return 1;
}

static int below(const char *path) {
    return path && root[0] && !strncmp(path, root, strlen(root));
}

static int is_ours(int file) { return file >= 0 && file < FILES && atomic_load(&ours[file]); }
static void keep(int file, int yes) { if (file >= 0 && file < FILES) atomic_store(&ours[file], (unsigned char)yes); }

#define REAL(type, name, ...)                                   \
    static type (*real)(__VA_ARGS__);                           \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define OPEN(name)                                              \
    int name(const char *path, int flags, ...) {                \
        REAL(int, name, const char *, int, ...);                \
        va_list list;                                           \
        va_start(list, flags);                                  \
        mode_t mode = va_arg(list, mode_t);                     \
        va_end(list);                                           \
        if (below(path) && fails(#name, path)) return -1;       \
        int file = real(path, flags, mode);                     \
        keep(file, below(path) && !(flags & O_DIRECTORY));      \
        return file;                                            \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                            \
    int name(int folder, const char *path, int flags, ...) {    \
        REAL(int, name, int, const char *, int, ...);           \
        va_list list;                                           \
        va_start(list, flags);                                  \
        mode_t mode = va_arg(list, mode_t);                     \
        va_end(list);                                           \
        if (below(path) && fails(#name, path)) return -1;       \
        int file = real(folder, path, flags, mode);             \
        keep(file, below(path) && !(flags & O_DIRECTORY));      \
        return file;                                            \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int file) {
    REAL(int, close, int);
    keep(file, 0);
    return real(file);
}

#define READ(name, offset)                                                    \
    ssize_t name(int file, void *data, size_t size, offset place) {           \
        REAL(ssize_t, name, int, void *, size_t, offset);                     \
        return is_ours(file) && fails(#name, 0) ? -1 : real(file, data, size, place); \
    }
READ(pread, off_t)
READ(pread64, off64_t)

ssize_t read(int file, void *data, size_t size) {
    REAL(ssize_t, read, int, void *, size_t);
    return is_ours(file) && fails("read", 0) ? -1 : real(file, data, size);
}

/* A disk that fills up takes a part of what is written, and then nothing more for a while. */
ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (is_ours(file) && atomic_load(&full) > 0) {
        atomic_fetch_sub(&full, 1);
        errno = error_number;
        return -1;
    }
    if (is_ours(file) && fails("write", 0)) {
        if (!short_write || size < 2) return -1;
        atomic_store(&full, 2);
        return real(file, data, size / 2);
    }
    return real(file, data, size);
}

#define WRITE(name, offset)                                                   \
    ssize_t name(int file, const void *data, size_t size, offset place) {     \
        REAL(ssize_t, name, int, const void *, size_t, offset);               \
        return is_ours(file) && fails(#name, 0) ? -1 : real(file, data, size, place); \
    }
WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    return is_ours(file) && fails("writev", 0) ? -1 : real(file, parts, count);
}

#define SYNC(name)                                              \
    int name(int file) {                                        \
        REAL(int, name, int);                                   \
        return is_ours(file) && fails(#name, 0) ? -1 : real(file); \
    }
SYNC(fsync)
SYNC(fdatasync)

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    return (below(from) || below(to)) && fails("rename", to) ? -1 : real(from, to);
}

int renameat(int one, const char *from, int other, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    return (below(from) || below(to)) && fails("renameat", to) ? -1 : real(one, from, other, to);
}

int renameat2(int one, const char *from, int other, const char *to, unsigned flags) {
    REAL(int, renameat2, int, const char *, int, const char *, unsigned);
    return (below(from) || below(to)) && fails("renameat2", to) ? -1 : real(one, from, other, to, flags);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    return below(path) && fails("mkdir", path) ? -1 : real(path, mode);
}

int link(const char *from, const char *to) {
    REAL(int, link, const char *, const char *);
    return below(to) && fails("link", to) ? -1 : real(from, to);
}
