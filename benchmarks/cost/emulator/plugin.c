/* QEMU plugin that counts what an AArch64 program executes between two marks, cut into intervals.
 *
 * Arguments: out=FILE, and optionally l1=BYTES:WAYS, l2=BYTES:WAYS, l3=BYTES:WAYS for a simulation of the data caches
 * (least recently used, 64-byte lines, write-back, write-allocate, no prefetcher, virtual addresses).
 *
 * The program speaks by the unused system call MARK_CALL: (BOUNDARY, address), where an interval begins, before that
 * code first runs; (START), (STOP). The caches are simulated from the first BOUNDARY on, so that a frame that is run
 * before START leaves them as the frame before would. FILE is text:
 *
 *     block ID ADDRESS INSTRUCTIONS CODE         code in hexadecimal, as it lies in memory
 *     interval INDEX ADDRESS LOADS STORES BYTES L1_MISSES L2_MISSES LAST_LEVEL_MISSES LINES_WRITTEN
 *     runs INTERVAL BLOCK TIMES
 *     end BLOCKS INTERVALS RUNS                  how many of each: the file is whole
 */
#include "qemu_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARK_CALL 9001
#define LINE_BYTES 64
#define BUCKETS 65536
#define MOST_BOUNDARIES 1024
#define MOST_INSTRUCTIONS 4096
#define LEVELS 3

enum { BOUNDARY = 0, START = 1, STOP = 2 };

typedef struct Block {
    uint64_t address, runs, interval;
    size_t instructions;
    unsigned char *code;
    unsigned long id;
    bool begins_interval, counted;
    struct Block *next, *later;
} Block;

/* One set-associative cache. Each set is ordered from the line used last to the one used longest ago. */
typedef struct {
    uint64_t sets, ways, *lines;
    bool *dirty;
} Cache;

typedef struct {
    uint64_t address, loads, stores, bytes, misses[LEVELS], lines_written;
} Interval;

typedef struct {
    uint64_t interval, runs;
    const Block *block;
} Runs;

__attribute__((visibility("default"))) int qemu_plugin_version = QEMU_PLUGIN_VERSION;
__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc,
                                                              char **argv);

static Block *buckets[BUCKETS], *first_block, *last_block;
static uint64_t boundaries[MOST_BOUNDARIES];
static size_t boundary_count;
static Cache caches[LEVELS];
static size_t levels;
static Interval *intervals;
static size_t interval_count, interval_room;
static Runs *runs;
static size_t runs_count, runs_room;
static bool counting, simulating;
static const char *path = "counts.txt";

static void fail(const char *what) {
    fprintf(stderr, "cost plugin: %s\n", what);
    exit(3);
}

static void *grown(void *array, size_t count, size_t *room, size_t size) {
    if (count < *room) return array;
    *room = *room ? *room * 2 : 1024;
    array = realloc(array, *room * size);
    if (!array) fail("out of memory");
    return array;
}

static void begin_interval(uint64_t address) {
    intervals = grown(intervals, interval_count, &interval_room, sizeof *intervals);
    memset(&intervals[interval_count], 0, sizeof *intervals);
    intervals[interval_count++].address = address;
}

static void keep_runs(Block *block) {
    if (!block->runs) return;
    runs = grown(runs, runs_count, &runs_room, sizeof *runs);
    runs[runs_count].interval = block->interval;
    runs[runs_count].block = block;
    block->counted = true;
    runs[runs_count++].runs = block->runs;
    block->runs = 0;
}

static void block_runs(unsigned int vcpu, void *userdata) {
    Block *block = userdata;
    (void)vcpu;
    if (!counting) return;
    if (block->begins_interval) begin_interval(block->address);
    if (block->interval != interval_count - 1) {
        keep_runs(block);
        block->interval = interval_count - 1;
    }
    block->runs++;
}

/* Uses a line of a cache. Gives whether it was there; otherwise it now is, and *evicted is the dirty line that had to
 * go for it, or 0. */
static bool use(Cache *cache, uint64_t line, bool store, uint64_t *evicted) {
    uint64_t *set = cache->lines + (line % cache->sets) * cache->ways;
    bool *dirty = cache->dirty + (line % cache->sets) * cache->ways;
    uint64_t way = 0;
    bool was_dirty, hit;
    while (way < cache->ways && set[way] != line) way++;
    hit = way < cache->ways;
    *evicted = 0;
    if (!hit) {
        way = cache->ways - 1;
        if (dirty[way]) *evicted = set[way];
    }
    was_dirty = hit && dirty[way];
    memmove(set + 1, set, way * sizeof *set);
    memmove(dirty + 1, dirty, way * sizeof *dirty);
    set[0] = line;
    dirty[0] = was_dirty || store;
    return hit;
}

/* A line that `level` lacked or evicted, asked of that level and those below it. */
static void reach(size_t level, uint64_t line, bool store, bool counted, Interval *interval) {
    uint64_t evicted;
    bool hit;
    if (level == levels) {
        if (store && interval) interval->lines_written++;
        return;
    }
    hit = use(&caches[level], line, store, &evicted);
    if (evicted) reach(level + 1, evicted, true, false, interval);
    if (hit) return;
    if (counted && interval) {
        interval->misses[level]++;
        if (level == levels - 1 && level < LEVELS - 1) interval->misses[LEVELS - 1]++;
    }
    /* A line that is written back is whole: what is below need not be read for it. */
    if (counted) reach(level + 1, line, false, true, interval);
}

static void memory_used(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *userdata) {
    uint64_t size = (uint64_t)1 << qemu_plugin_mem_size_shift(info), line;
    bool store = qemu_plugin_mem_is_store(info);
    Interval *interval = NULL;
    (void)vcpu;
    (void)userdata;
    if (counting) {
        interval = &intervals[interval_count - 1];
        if (store) interval->stores++;
        else interval->loads++;
        interval->bytes += size;
    } else if (!simulating) {
        return;
    }
    if (!levels) return;
    for (line = address / LINE_BYTES; line <= (address + size - 1) / LINE_BYTES; line++)
        reach(0, line, store, true, interval);
}

static Block *block_of(uint64_t address, size_t instructions, const unsigned char *code) {
    Block **bucket = &buckets[(address >> 2) % BUCKETS], *block;
    size_t i;
    for (block = *bucket; block; block = block->next)
        if (block->address == address && block->instructions == instructions &&
            !memcmp(block->code, code, 4 * instructions))
            return block;
    block = calloc(1, sizeof *block);
    if (!block || !(block->code = malloc(4 * instructions))) fail("out of memory");
    memcpy(block->code, code, 4 * instructions);
    block->address = address;
    block->instructions = instructions;
    for (i = 0; i < boundary_count; i++) block->begins_interval |= boundaries[i] == address;
    block->next = *bucket;
    *bucket = block;
    if (last_block) last_block->later = block;
    else first_block = block;
    last_block = block;
    return block;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    static unsigned char code[4 * MOST_INSTRUCTIONS];
    size_t instructions = qemu_plugin_tb_n_insns(tb), i;
    Block *block;
    (void)id;
    if (instructions > MOST_INSTRUCTIONS) fail("a translated block is too long");
    for (i = 0; i < instructions; i++) {
        const struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, i);
        if (qemu_plugin_insn_size(instruction) != 4) fail("an instruction is not AArch64's");
        memcpy(code + 4 * i, qemu_plugin_insn_data(instruction), 4);
    }
    block = block_of(qemu_plugin_tb_vaddr(tb), instructions, code);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, block_runs, QEMU_PLUGIN_CB_NO_REGS, block);
    for (i = 0; i < instructions; i++)
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), memory_used, QEMU_PLUGIN_CB_NO_REGS,
                                         QEMU_PLUGIN_MEM_RW, NULL);
}

static void write_counts(void) {
    FILE *file = fopen(path, "w");
    unsigned long written = 0;
    Block *block;
    size_t i;
    if (!file) fail("the file of counts cannot be written");
    for (block = first_block; block; block = block->later) keep_runs(block);
    /* Only those that ran are written; they get their numbers here. */
    for (block = first_block; block; block = block->later) {
        if (!block->counted) continue;
        block->id = written++;
        fprintf(file, "block %lu %llu %zu ", block->id, (unsigned long long)block->address, block->instructions);
        for (i = 0; i < 4 * block->instructions; i++) fprintf(file, "%02x", block->code[i]);
        fputc('\n', file);
    }
    for (i = 0; i < interval_count; i++) {
        const Interval *one = &intervals[i];
        fprintf(file, "interval %zu %llu %llu %llu %llu %llu %llu %llu %llu\n", i, (unsigned long long)one->address,
                (unsigned long long)one->loads, (unsigned long long)one->stores, (unsigned long long)one->bytes,
                (unsigned long long)one->misses[0], (unsigned long long)one->misses[1],
                (unsigned long long)one->misses[2], (unsigned long long)one->lines_written);
    }
    for (i = 0; i < runs_count; i++)
        fprintf(file, "runs %llu %lu %llu\n", (unsigned long long)runs[i].interval, runs[i].block->id,
                (unsigned long long)runs[i].runs);
    fprintf(file, "end %lu %zu %zu\n", written, interval_count, runs_count);
    if (fclose(file)) fail("the file of counts cannot be written");
}

static void system_call(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                        uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)vcpu, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != MARK_CALL) return;
    if (a1 == BOUNDARY) {
        if (boundary_count == MOST_BOUNDARIES) fail("too many boundaries");
        boundaries[boundary_count++] = a2;
        simulating = true;
    } else if (a1 == START) {
        begin_interval(0);
        counting = true;
    } else if (a1 == STOP && counting) {
        counting = simulating = false;
        write_counts();
    }
}

static void make_cache(Cache *cache, const char *text) {
    unsigned long long bytes, ways;
    if (sscanf(text, "%llu:%llu", &bytes, &ways) != 2 || !ways || bytes % (LINE_BYTES * ways) ||
        !(cache->sets = bytes / LINE_BYTES / ways))
        fail("a cache is given as BYTES:WAYS");
    cache->ways = ways;
    cache->lines = calloc(cache->sets * ways, sizeof *cache->lines);
    cache->dirty = calloc(cache->sets * ways, sizeof *cache->dirty);
    if (!cache->lines || !cache->dirty) fail("out of memory");
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
    int i;
    (void)info;
    for (i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "out=", 4)) {
            char *copy = malloc(strlen(argv[i] + 4) + 1);
            if (!copy) fail("out of memory");
            path = strcpy(copy, argv[i] + 4);
        } else if (argv[i][0] == 'l' && argv[i][1] == (char)('1' + (int)levels) && argv[i][2] == '=' &&
                   levels < LEVELS) {
            make_cache(&caches[levels++], argv[i] + 3);
        } else {
            fail("an argument is not known");
        }
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, system_call);
    return 0;
}
