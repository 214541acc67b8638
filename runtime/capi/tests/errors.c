/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Wrong calls from C: each is answered with a status and words, and nothing else happens. `errors MODEL` ends with 0. */
#include "delegraph_app.h"

#include <stdio.h>
#include <string.h>

static int failed = 0;

/* The status is `want`, and the message or hint has `words`. */
static void expect(const char *what, delegraph_status got, delegraph_status want, const char *words)
{
    delegraph_error error = {0};
    error.struct_size = sizeof(error);
    if (delegraph_last_error(&error) != got || error.status != got || got != want
        || (strstr(error.message, words) == NULL && strstr(error.hint, words) == NULL)) {
        printf("%s: status %u, expected %u with `%s`; last error: %u, %s: %s (%s)\n", what, (unsigned)got, (unsigned)want,
               words, (unsigned)error.status, error.kind, error.message, error.hint);
        failed = 1;
    }
}

int main(int argc, char **argv)
{
    static const char rubbish[] = "this is no model at all";
    static const float numbers[64 * 16] = {0};
    delegraph_model *model = NULL;
    delegraph_session *session = NULL;
    delegraph_model_options options = {0};
    delegraph_session_options open_options = {0};
    delegraph_counts counts = {0};
    delegraph_slot slot = {0};
    delegraph_value value = {0}, output = {0};
    delegraph_error error = {0};
    uint64_t sizes[2];
    const char *json;

    if (argc != 2) {
        return 2;
    }
    error.struct_size = sizeof(error);
    if (delegraph_last_error(&error) != DELEGRAPH_OK || error.message[0] != '\0' || delegraph_last_error(NULL) != DELEGRAPH_OK) {
        printf("an error before any call\n");
        failed = 1;
    }
    expect("too small an error", (error.struct_size = 4, delegraph_last_error(&error)), DELEGRAPH_USAGE, "sizeof(delegraph_error)");

    /* Files and bytes. */
    expect("absent path", delegraph_model_from_path("no/such/file.pte", NULL, &model), DELEGRAPH_BAD_INPUT, "no/such/file.pte");
    expect("NULL path", delegraph_model_from_path(NULL, NULL, &model), DELEGRAPH_USAGE, "`path` is NULL");
    expect("NULL out", delegraph_model_from_path(argv[1], NULL, NULL), DELEGRAPH_USAGE, "`out` is NULL");
    expect("rubbish", delegraph_model_from_bytes(rubbish, sizeof(rubbish), NULL, &model), DELEGRAPH_BAD_INPUT, "neither");
    expect("no bytes", delegraph_model_from_bytes(NULL, 0, NULL, &model), DELEGRAPH_BAD_INPUT, "empty");
    expect("NULL bytes", delegraph_model_from_bytes(NULL, 8, NULL, &model), DELEGRAPH_USAGE, "`bytes` is NULL");
    expect("too many bytes", delegraph_model_from_bytes(rubbish, UINT64_MAX, NULL, &model), DELEGRAPH_USAGE, "memory");
    expect("no descriptor", delegraph_model_from_fd(-1, 0, 0, NULL, &model), DELEGRAPH_USAGE, "descriptor");
    expect("options without a size", delegraph_model_from_path(argv[1], &options, &model), DELEGRAPH_USAGE, "struct_size 0");
    options.struct_size = sizeof(options);
    options.flags = 0x80;
    expect("an unknown flag", delegraph_model_from_path(argv[1], &options, &model), DELEGRAPH_USAGE, "0x80");
    options.flags = 0;
    options.config_text = "[select]\nfallbak = \"deny\"\n";
    options.config_text_size = strlen(options.config_text);
    expect("a wrong key", delegraph_model_from_path(argv[1], &options, &model), DELEGRAPH_USAGE, "did you mean `fallback`?");
    options.config_text = "\xff";
    options.config_text_size = 1;
    expect("no UTF-8", delegraph_model_from_path(argv[1], &options, &model), DELEGRAPH_USAGE, "UTF-8");
    options.config_path = "x.toml";
    expect("two configurations", delegraph_model_from_path(argv[1], &options, &model), DELEGRAPH_USAGE, "both");
    if (model != NULL) {
        printf("a handle after a failure\n");
        failed = 1;
    }

    /* Handles that are NULL. */
    expect("NULL model", delegraph_session_open(NULL, NULL, &session), DELEGRAPH_USAGE, "`model` is NULL");
    expect("NULL session", delegraph_session_run(NULL, NULL, 0), DELEGRAPH_USAGE, "`session` is NULL");
    expect("NULL reset", delegraph_session_reset(NULL), DELEGRAPH_USAGE, "`session` is NULL");
    expect("NULL adopt", delegraph_session_adopt_state(NULL, NULL, NULL), DELEGRAPH_USAGE, "`session` is NULL");
    expect("NULL report", delegraph_session_report(NULL, &json), DELEGRAPH_USAGE, "`session` is NULL");
    if (delegraph_model_method(NULL, 0) != NULL) {
        failed = 1;
    }
    delegraph_model_free(NULL);
    delegraph_session_free(NULL);

    /* A good model, wrong calls. */
    if (delegraph_model_from_path(argv[1], NULL, &model) != DELEGRAPH_OK) {
        printf("the model does not load\n");
        return 1;
    }
    open_options.struct_size = sizeof(open_options);
    open_options.method = "backward";
    expect("no such method", delegraph_session_open(model, &open_options, &session), DELEGRAPH_USAGE, "backward");
    open_options.method = NULL;
    open_options.threads = 1;
    if (delegraph_session_open(model, &open_options, &session) != DELEGRAPH_OK) {
        printf("the session does not open\n");
        return 1;
    }
    delegraph_model_free(model);
    expect("NULL counts", delegraph_session_counts(session, NULL), DELEGRAPH_USAGE, "`out` is NULL");
    expect("counts without a size", delegraph_session_counts(session, &counts), DELEGRAPH_USAGE, "delegraph_counts");
    slot.struct_size = sizeof(slot);
    expect("no such list", delegraph_session_slot(session, 9, 0, &slot), DELEGRAPH_USAGE, "no such list");
    expect("no such place", delegraph_session_slot(session, DELEGRAPH_INPUTS, 1, &slot), DELEGRAPH_USAGE, "1 places");
    output.struct_size = sizeof(output);
    expect("no such output", delegraph_session_output(session, 7, &output), DELEGRAPH_USAGE, "1 outputs");
    expect("no such state", delegraph_session_state(session, "cache", &output), DELEGRAPH_USAGE, "`cache`");
    expect("NULL state", delegraph_session_state(session, NULL, &output), DELEGRAPH_USAGE, "`name` is NULL");
    expect("no inputs", delegraph_session_run(session, NULL, 0), DELEGRAPH_USAGE, "1");
    expect("NULL inputs", delegraph_session_run(session, NULL, 1), DELEGRAPH_USAGE, "`inputs` is NULL");
    expect("value without a size", delegraph_session_run(session, &value, 1), DELEGRAPH_USAGE, "delegraph_value");
    value.struct_size = sizeof(value);
    expect("too many inputs", delegraph_session_run(session, &value, UINT64_MAX), DELEGRAPH_USAGE, "takes 1");
    value.kind = 77;
    expect("no such kind", delegraph_session_run(session, &value, 1), DELEGRAPH_USAGE, "kind 77");
    value.kind = DELEGRAPH_KIND_TENSOR;
    value.dtype = 99;
    expect("no such dtype", delegraph_session_run(session, &value, 1), DELEGRAPH_USAGE, "dtype 99");
    value.dtype = DELEGRAPH_DTYPE_F32;
    value.rank = 2;
    expect("NULL sizes", delegraph_session_run(session, &value, 1), DELEGRAPH_USAGE, "`sizes` is NULL");
    value.sizes = sizes;
    value.rank = 99;
    expect("rank", delegraph_session_run(session, &value, 1), DELEGRAPH_USAGE, "rank 99");
    value.rank = 2;
    sizes[0] = UINT64_MAX;
    sizes[1] = UINT64_MAX;
    expect("sizes", delegraph_session_run(session, &value, 1), DELEGRAPH_USAGE, "too large");
    sizes[0] = UINT64_C(1) << 62;
    sizes[1] = UINT64_C(1) << 62;
    expect("too many elements", delegraph_session_run(session, &value, 1), DELEGRAPH_USAGE, "too many");
    sizes[0] = 2;
    sizes[1] = 16;
    value.data_size = 2 * 16 * 4;
    expect("NULL data", delegraph_session_run(session, &value, 1), DELEGRAPH_USAGE, "`data` is NULL");
    value.data = numbers;
    value.data_size = 2 * 16 * 4 - 1;
    expect("too few bytes", delegraph_session_run(session, &value, 1), DELEGRAPH_USAGE, "127");
    sizes[1] = 17;
    value.data_size = 2 * 17 * 4;
    expect("a wrong shape", delegraph_session_run(session, &value, 1), DELEGRAPH_USAGE, "17");
    /* Within the bounds of the input, so that the operator is who refuses it. */
    sizes[1] = 15;
    value.data_size = 2 * 15 * 4;
    expect("a shape that an operator refuses", delegraph_session_run(session, &value, 1), DELEGRAPH_BAD_INPUT, "2x15");
    value.dtype = DELEGRAPH_DTYPE_I32;
    sizes[1] = 16;
    value.data_size = 2 * 16 * 4;
    expect("a wrong dtype", delegraph_session_run(session, &value, 1), DELEGRAPH_USAGE, "i32");
    expect("NULL json", delegraph_session_report(session, NULL), DELEGRAPH_USAGE, "`json` is NULL");
    expect("itself", delegraph_session_adopt_state(session, session, NULL), DELEGRAPH_USAGE, "same");

    /* After all that it runs. */
    value.dtype = DELEGRAPH_DTYPE_F32;
    if (delegraph_session_run(session, &value, 1) != DELEGRAPH_OK
        || delegraph_session_output(session, 0, &output) != DELEGRAPH_OK || output.kind != DELEGRAPH_KIND_TENSOR
        || output.rank != 2 || output.sizes[0] != 2) {
        delegraph_last_error((error.struct_size = sizeof(error), &error));
        printf("it does not run any more: %s\n", error.message);
        failed = 1;
    }
    delegraph_session_free(session);
    printf(failed ? "failed\n" : "all answered\n");
    return failed;
}
