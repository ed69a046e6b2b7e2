/* As on some network file systems: in the folder $FAULTY_FOLDER, files cannot be locked, or cannot be mapped into memory.
   Preloaded into a process (LD_PRELOAD); $FAULTY_LOCKS and $FAULTY_MAPS are the errno of each, if it fails. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int fault(const char *variable, int descriptor) {
    const char *number = getenv(variable), *folder = getenv("FAULTY_FOLDER");
    char link[64], path[4096];
    if (number == NULL || folder == NULL || descriptor < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0 ? atoi(number) : 0;
}

#define FCNTL(name)                                                                 \
    int name(int descriptor, int command, ...) {                                    \
        static int (*real)(int, int, ...);                                          \
        if (real == NULL) real = dlsym(RTLD_NEXT, #name);                           \
        va_list arguments;                                                          \
        va_start(arguments, command);                                               \
        void *argument = va_arg(arguments, void *);                                 \
        va_end(arguments);                                                          \
        int locks = command == F_SETLK || command == F_SETLKW || command == F_GETLK; \
        int error = locks ? fault("FAULTY_LOCKS", descriptor) : 0;                  \
        if (error == 0) return real(descriptor, command, argument);                 \
        errno = error;                                                              \
        return -1;                                                                  \
    }

#define MMAP(name)                                                                      \
    void *name(void *start, size_t size, int rights, int flags, int descriptor, off_t at) { \
        static void *(*real)(void *, size_t, int, int, int, off_t);                     \
        if (real == NULL) real = dlsym(RTLD_NEXT, #name);                               \
        int error = flags & MAP_SHARED ? fault("FAULTY_MAPS", descriptor) : 0;          \
        if (error == 0) return real(start, size, rights, flags, descriptor, at);        \
        errno = error;                                                                  \
        return MAP_FAILED;                                                              \
    }

FCNTL(fcntl)
FCNTL(fcntl64)
MMAP(mmap)
MMAP(mmap64)
