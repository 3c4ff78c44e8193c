/* For LD_PRELOAD: torch's CPU memory on pages of its own, ended by a page that nobody may touch, and never used again once freed.

A stale read or write, or one beyond the end, dies with SIGSEGV where it is made; one in the rest of the block's pages aborts at free().
Memory that nobody wrote is NaN. torch takes the memory of its tensors by posix_memalign(), and of shared ones by mmap(). */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void __libc_free(void *);
extern void *__libc_realloc(void *, size_t);

enum { PAGE = 4096, ALIGNMENT = 16, POISON = 0xFF };
static const size_t SPACE = (size_t)1 << 42, FREED = ~(size_t)0;
static const int ANYWHERE = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

static char *space;
static size_t *sizes; /* by the block's first page */
static _Atomic size_t used;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void stop(const char *reason) {
    if (write(2, reason, strlen(reason)) >= 0) abort();
}

static void reserve(void) {
    sizes = mmap(NULL, SPACE / PAGE * sizeof *sizes, PROT_READ | PROT_WRITE, ANYWHERE, -1, 0);
    space = mmap(NULL, SPACE, PROT_NONE, ANYWHERE, -1, 0);
    if (space == MAP_FAILED || sizes == MAP_FAILED) stop("guard: no address space\n");
}

static size_t pages(size_t size) { return size ? (size + PAGE - 1) / PAGE : 1; }

static int is_ours(void *block) { return space && (char *)block >= space && (char *)block < space + SPACE; }

/* Of a block: its first page, and its size. */
static char *first_page(char *block, size_t *size) {
    char *page = space + (block - space) / PAGE * PAGE;
    *size = sizes[(page - space) / PAGE];
    if (*size == FREED) stop("guard: freed twice\n");
    return page;
}

int posix_memalign(void **result, size_t alignment, size_t size) {
    (void)alignment; /* no view of torch's has more than that of an element, and vectors are ALIGNMENT wide */
    pthread_once(&once, reserve);
    size_t length = pages(size) * PAGE, at = atomic_fetch_add(&used, length + PAGE);
    if (at + length + PAGE > SPACE) stop("guard: too many blocks\n");
    char *page = space + at;
    if (mprotect(page, length, PROT_READ | PROT_WRITE)) return ENOMEM;
    memset(page, POISON, length);
    sizes[at / PAGE] = size;
    *result = page + length - (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (*result == page + length) *result = page; /* an empty one */
    return 0;
}

static void check(char *from, char *to) {
    for (; from < to; from++)
        if (*(unsigned char *)from != POISON) stop("guard: written beside a block\n");
}

void free(void *block) {
    if (!is_ours(block)) {
        __libc_free(block);
        return;
    }
    size_t size;
    char *page = first_page(block, &size), *end = page + pages(size) * PAGE;
    check(page, block);
    check((char *)block + size, end);
    sizes[(page - space) / PAGE] = FREED;
    mmap(page, end - page, PROT_NONE, ANYWHERE | MAP_FIXED, -1, 0);
}

void *realloc(void *block, size_t size) {
    if (!is_ours(block)) return __libc_realloc(block, size);
    size_t before;
    void *result;
    first_page(block, &before);
    if (posix_memalign(&result, ALIGNMENT, size)) return NULL;
    memcpy(result, block, before < size ? before : size);
    free(block);
    return result;
}

int munmap(void *address, size_t size) {
    return mmap(address, size, PROT_NONE, ANYWHERE | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0;
}
