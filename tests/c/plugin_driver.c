/* Drives benchmarks/cost/emulator/plugin.c without QEMU: stands in for the emulator, by commands on standard input.
 *
 *     t ADDRESS N     translate a block of N instructions        x ADDRESS           execute it
 *     l ADDRESS LOG2  load 2^LOG2 bytes                          s ADDRESS LOG2      store them
 *     m OPERATION ARGUMENT    the program's system call 9001     o NUMBER            another system call
 */
#include "qemu_plugin.h"

#include <stdio.h>
#include <stdlib.h>

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv);
extern int qemu_plugin_version;

struct qemu_plugin_insn {
    unsigned char code[4];
};
struct qemu_plugin_tb {
    uint64_t address;
    size_t n;
    struct qemu_plugin_insn instructions[64];
    qemu_plugin_vcpu_udata_cb_t run;
    void *userdata;
};

static struct qemu_plugin_tb translated[1024];
static size_t count;
static qemu_plugin_vcpu_tb_trans_cb_t translate;
static qemu_plugin_vcpu_syscall_cb_t call;
static qemu_plugin_vcpu_mem_cb_t memory;
static bool stores;

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_tb_trans_cb_t callback) {
    (void)id;
    translate = callback;
}
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, qemu_plugin_vcpu_udata_cb_t callback,
                                          enum qemu_plugin_cb_flags flags, void *userdata) {
    (void)flags;
    tb->run = callback;
    tb->userdata = userdata;
}
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *instruction, qemu_plugin_vcpu_mem_cb_t callback,
                                      enum qemu_plugin_cb_flags flags, enum qemu_plugin_mem_rw rw, void *userdata) {
    (void)instruction, (void)flags, (void)rw, (void)userdata;
    memory = callback;
}
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, qemu_plugin_vcpu_syscall_cb_t callback) {
    (void)id;
    call = callback;
}
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb) { return tb->n; }
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb) { return tb->address; }
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index) {
    return (struct qemu_plugin_insn *)&tb->instructions[index];
}
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *instruction) { return instruction->code; }
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *instruction) {
    (void)instruction;
    return 4;
}
unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info) { return info; }
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t info) {
    (void)info;
    return stores;
}

int main(int argc, char **argv) {
    char command;
    unsigned long long a, b;
    if (qemu_plugin_version != 1 || qemu_plugin_install(0, NULL, argc - 1, argv + 1)) return 1;
    while (scanf(" %c %llu", &command, &a) == 2) {
        if (command != 'x' && command != 'o' && scanf("%llu", &b) != 1) return 1;
        if (command == 't') {
            struct qemu_plugin_tb *tb = &translated[count++];
            size_t i;
            tb->address = a;
            tb->n = b;
            for (i = 0; i < tb->n; i++) tb->instructions[i].code[0] = (unsigned char)(a / 4 + i);
            translate(0, tb);
        } else if (command == 'x') {
            size_t i = count;
            while (i-- > 0 && translated[i].address != a) {
            }
            translated[i].run(0, translated[i].userdata);
        } else if (command == 'm' || command == 'o') {
            call(0, 0, command == 'm' ? 9001 : (int64_t)a, command == 'm' ? a : 0, command == 'm' ? b : 0, 0, 0, 0, 0, 0, 0);
        } else {
            stores = command == 's';
            memory(0, (qemu_plugin_meminfo_t)b, a, NULL);
        }
    }
    return 0;
}
