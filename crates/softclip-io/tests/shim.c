/* For tests, with LD_PRELOAD: a file system that lacks locks or cannot sync.
 * SHIM_FLOCK, SHIM_FSYNC_FOLDER and SHIM_FSYNC_FILE: the errno with which these calls fail. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

static int fails(const char *name) {
  const char *code = getenv(name);
  if (code == NULL) return 0;
  errno = atoi(code);
  return 1;
}

int flock(int fd, int operation) {
  if (fails("SHIM_FLOCK")) return -1;
  int (*next)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
  return next(fd, operation);
}

int fsync(int fd) {
  struct stat found;
  int is_folder = fstat(fd, &found) == 0 && S_ISDIR(found.st_mode);
  if (fails(is_folder ? "SHIM_FSYNC_FOLDER" : "SHIM_FSYNC_FILE")) return -1;
  int (*next)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  return next(fd);
}
