/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Runs a model once, says what ran where, and compares what came out.
 *
 *     cc -std=c99 -I runtime/capi/include runtime/capi/examples/run.c -L target/release -ldelegraph_capi -lm -o run
 *     run MODEL CONFIG INPUT.raw ... -- EXPECTED.raw ...
 *
 * CONFIG is a backends.toml, or `-` for none. A raw file holds the elements of a tensor, row-major and little-endian, or the
 * eight bytes of a number, or nothing for None. Where sizes are dynamic, the first one is taken from the length of the file.
 * Outputs of f32 may differ by 1e-4; all others are equal. Ends with 0 if all is well, 1 if outputs differ, 2 if a call failed.
 */
#include "delegraph_app.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 16

/* Every call that can fail goes through this: the library's own words, then the end. */
static void check(delegraph_status status, const char *what)
{
    delegraph_error error = {0};
    if (status == DELEGRAPH_OK) {
        return;
    }
    error.struct_size = sizeof(error);
    delegraph_last_error(&error);
    fprintf(stderr, "%s failed (%u, %s): %s\n", what, (unsigned)status, error.kind, error.message);
    if (error.hint[0] != '\0') {
        fprintf(stderr, "  hint: %s\n", error.hint);
    }
    exit(2);
}

static void *read_file(const char *path, uint64_t *size)
{
    FILE *file = fopen(path, "rb");
    long length = -1;
    char *bytes = NULL;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0) {
        length = ftell(file);
    }
    if (length >= 0 && fseek(file, 0, SEEK_SET) == 0) {
        bytes = (char *)malloc((size_t)length + 1);
    }
    if (bytes == NULL || fread(bytes, 1, (size_t)length, file) != (size_t)length) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    fclose(file);
    *size = (uint64_t)length;
    return bytes;
}

static void print_slot(const char *what, const delegraph_slot *slot)
{
    uint32_t d;
    printf("%s `%s`", what, slot->name);
    if (slot->kind == DELEGRAPH_KIND_TENSOR) {
        printf(": dtype %u, %s", (unsigned)slot->dtype, slot->dynamic ? "at most [" : "[");
        for (d = 0; d < slot->rank; d++) {
            printf("%s%llu", d == 0 ? "" : ", ", (unsigned long long)slot->sizes[d]);
        }
        printf("]");
    }
    printf("%s\n", slot->fixed ? ", fixed" : "");
}

/* Makes an argument of a file's bytes; `sizes` has room for those of the tensor. */
static delegraph_value argument(const delegraph_slot *slot, void *bytes, uint64_t size, uint64_t *sizes)
{
    delegraph_value value = {0};
    value.struct_size = sizeof(value);
    value.kind = slot->kind;
    if (slot->kind == DELEGRAPH_KIND_TENSOR) {
        memcpy(sizes, slot->sizes, slot->rank * sizeof(sizes[0]));
        if (slot->dynamic && slot->rank > 0 && slot->data_size > 0) {
            sizes[0] = slot->sizes[0] * size / slot->data_size;
        }
        value.dtype = slot->dtype;
        value.rank = slot->rank;
        value.sizes = sizes;
        value.data = bytes;
        value.data_size = size;
    } else if (slot->kind == DELEGRAPH_KIND_FLOAT && size == 8) {
        memcpy(&value.float_value, bytes, 8);
    } else if (size == 8) {
        memcpy(&value.int_value, bytes, 8);
    }
    return value;
}

/* 1 if they differ. */
static int differ(const delegraph_value *got, const void *want, uint64_t size)
{
    uint64_t i;
    if (got->kind == DELEGRAPH_KIND_NONE) {
        return size != 0;
    }
    if (got->kind == DELEGRAPH_KIND_FLOAT) {
        return size != 8 || memcmp(&got->float_value, want, 8) != 0;
    }
    if (got->kind == DELEGRAPH_KIND_INT || got->kind == DELEGRAPH_KIND_BOOL) {
        return size != 8 || memcmp(&got->int_value, want, 8) != 0;
    }
    if (got->data_size != size) {
        return 1;
    }
    if (got->dtype != DELEGRAPH_DTYPE_F32) {
        return memcmp(got->data, want, (size_t)size) != 0;
    }
    for (i = 0; i < size / 4; i++) {
        float a, b;
        memcpy(&a, (const char *)got->data + 4 * i, 4);
        memcpy(&b, (const char *)want + 4 * i, 4);
        if (a != b && !(fabsf(a - b) <= 1e-4f + 1e-4f * fabsf(b))) {
            printf("element %llu is %g, expected %g\n", (unsigned long long)i, (double)a, (double)b);
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    delegraph_model_options options = {0};
    delegraph_model *model;
    delegraph_session *session;
    delegraph_counts counts = {0};
    delegraph_slot slot = {0};
    delegraph_value inputs[MOST], output = {0};
    uint64_t sizes[MOST][MOST], index;
    void *bytes[MOST] = {0};
    const char *name, *report;
    int at = 3, different = 0;

    if (argc < 3) {
        fprintf(stderr, "usage: run MODEL CONFIG INPUT.raw ... -- EXPECTED.raw ...\n");
        return 2;
    }
    options.struct_size = sizeof(options);
    options.config_path = strcmp(argv[2], "-") == 0 ? NULL : argv[2];
    check(delegraph_model_from_path(argv[1], &options, &model), "loading the model");
    for (index = 0; (name = delegraph_model_method(model, index)) != NULL; index++) {
        printf("method `%s`\n", name);
    }
    check(delegraph_session_open(model, NULL, &session), "opening `forward`");
    /* The session keeps what it needs. */
    delegraph_model_free(model);

    counts.struct_size = sizeof(counts);
    slot.struct_size = sizeof(slot);
    check(delegraph_session_counts(session, &counts), "counting");
    if (counts.inputs > MOST || counts.outputs > MOST) {
        fprintf(stderr, "more than %d inputs or outputs\n", MOST);
        return 2;
    }
    for (index = 0; index < counts.inputs && at < argc && strcmp(argv[at], "--") != 0; index++, at++) {
        uint64_t size;
        check(delegraph_session_slot(session, DELEGRAPH_INPUTS, index, &slot), "describing an input");
        print_slot("input", &slot);
        bytes[index] = read_file(argv[at], &size);
        inputs[index] = argument(&slot, bytes[index], size, sizes[index]);
    }
    check(delegraph_session_run(session, inputs, index), "running");

    output.struct_size = sizeof(output);
    for (index = 0, at++; index < counts.outputs; index++, at++) {
        check(delegraph_session_slot(session, DELEGRAPH_OUTPUTS, index, &slot), "describing an output");
        print_slot("output", &slot);
        check(delegraph_session_output(session, index, &output), "reading an output");
        if (at < argc) {
            uint64_t size;
            void *want = read_file(argv[at], &size);
            int wrong = differ(&output, want, size);
            printf("output %llu is %s\n", (unsigned long long)index, wrong ? "wrong" : "as expected");
            different |= wrong;
            free(want);
        }
    }
    check(delegraph_session_report(session, &report), "reporting");
    printf("%s\n", report);

    delegraph_session_free(session);
    for (index = 0; index < MOST; index++) {
        free(bytes[index]);
    }
    return different;
}
