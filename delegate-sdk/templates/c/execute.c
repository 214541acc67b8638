/* Blobs are judged, loaded and run. */

#include "my_npu.h"

#include <stdlib.h>

/* A tensor of a run. */
typedef struct slot {
    const float *data;
    uint64_t count;
    /* The input whose sizes it has. */
    uint32_t origin;
    /* Room of its own, kept between runs; inputs have none. */
    float *room;
    uint64_t capacity;
} slot;

typedef struct step {
    const my_npu_op *op;
    uint32_t a, b;
} step;

struct dg_session {
    uint32_t inputs, steps, outputs;
    step *step;
    uint32_t *output;
    slot *slots;
};

dg_status my_npu_blob_check(dg_delegate *self, const dg_call *call, const dg_blob_meta *meta, dg_check_sink *sink) {
    dg_text delegate, format;
    dg_blob_verdict verdict = DG_BLOB_OPTIMAL;
    const char *reason = "";
    (void)self;
    if (!MY_NPU_REACHES(meta, dg_blob_meta, payload_size)) return my_npu_bad_struct(call, "dg_blob_meta");
    delegate.data = meta->delegate, delegate.size = meta->delegate_size;
    format.data = meta->format, format.size = meta->format_size;
    if (!dg_text_is(delegate, MY_NPU_NAME) || !dg_text_is(format, MY_NPU_FORMAT)) {
        verdict = DG_BLOB_NOT_MINE;
        reason = "the blob is of another delegate";
    } else if (meta->format_version != MY_NPU_FORMAT_VERSION) {
        verdict = DG_BLOB_UNSUPPORTED_HERE;
        reason = "the blob is of another version of the form";
    }
    return call->host->blob_set_verdict(sink, verdict, reason, strlen(reason));
}

static const char out_of_memory[] = "out of memory";

/* Reads the steps. The host has checked the blob's hash, not its meaning: whatever is there must be bounded. */
static const char *read_steps(dg_session *self, const uint8_t *data, uint64_t size) {
    uint64_t slots;
    if (size < 12) return "the list of steps is cut short";
    self->inputs = dg_load_u32(data);
    self->steps = dg_load_u32(data + 4);
    self->outputs = dg_load_u32(data + 8);
    slots = (uint64_t)self->inputs + self->steps;
    if (self->inputs == 0 || slots > 1000000) return "the list of steps makes no sense";
    if (size != 12 + 12 * (uint64_t)self->steps + 4 * (uint64_t)self->outputs) return "the list of steps is cut short";
    self->step = calloc((size_t)self->steps + 1, sizeof *self->step);
    self->output = calloc((size_t)self->outputs + 1, sizeof *self->output);
    self->slots = calloc((size_t)slots, sizeof *self->slots);
    if (!self->step || !self->output || !self->slots) return out_of_memory;
    data += 12;
    for (uint32_t i = 0; i < self->steps; i++, data += 12) {
        step *s = &self->step[i];
        s->op = my_npu_op_coded(dg_load_u32(data));
        s->a = dg_load_u32(data + 4);
        s->b = dg_load_u32(data + 8);
        if (!s->op || s->a >= self->inputs + i || s->b >= self->inputs + i) return "a step makes no sense";
    }
    for (uint32_t i = 0; i < self->outputs; i++, data += 4) {
        self->output[i] = dg_load_u32(data);
        if (self->output[i] >= slots) return "an output that nothing makes";
    }
    return NULL;
}

dg_status my_npu_session_load(dg_delegate *self, const dg_call *call, const dg_blob *blob, dg_session **out) {
    dg_session *session;
    const char *problem = "the blob has no section `steps`";
    (void)self;
    if (!MY_NPU_REACHES(blob, dg_blob, weights)) return my_npu_bad_struct(call, "dg_blob");
    for (uint64_t i = 0; i < blob->section_count; i++)
        if (!MY_NPU_REACHES(blob->sections[i], dg_section, size)) return my_npu_bad_struct(call, "dg_section");
    session = calloc(1, sizeof *session);
    if (!session) return my_npu_fail(call, DG_E_OUT_OF_MEMORY, DG_NO_NODE, "out of memory");
    for (uint64_t i = 0; i < blob->section_count; i++) {
        const dg_section *section = blob->sections[i];
        dg_text name = {section->name, section->name_size};
        if (!dg_text_is(name, "steps")) continue;
        problem = read_steps(session, section->data, section->size);
        break;
    }
    if (problem) {
        my_npu_session_unload(session, call);
        return my_npu_fail(call, problem == out_of_memory ? DG_E_OUT_OF_MEMORY : DG_E_BLOB_CORRUPT, DG_NO_NODE, problem);
    }
    *out = session;
    return DG_OK;
}

void my_npu_session_unload(dg_session *session, const dg_call *call) {
    (void)call;
    for (uint32_t i = 0; session->slots && i < session->steps; i++) free(session->slots[session->inputs + i].room);
    free(session->slots);
    free(session->step);
    free(session->output);
    free(session);
}

/* Elements of a tensor; UINT64_MAX: its sizes make no sense, or its bytes do not hold them. */
static uint64_t elements(const dg_tensor *tensor) {
    uint64_t count = 1;
    for (uint32_t d = 0; d < tensor->rank; d++) {
        uint64_t size = (uint64_t)tensor->sizes[d];
        if (tensor->sizes[d] < 0 || (size != 0 && count > UINT64_MAX / 8 / size)) return UINT64_MAX;
        count *= size;
    }
    return tensor->dtype == DG_DTYPE_F32 && count <= tensor->data_size / sizeof(float) ? count : UINT64_MAX;
}

static dg_status run_step(dg_session *session, const dg_call *call, uint32_t i) {
    const step *s = &session->step[i];
    const slot *a = &session->slots[s->a], *b = &session->slots[s->b];
    slot *made = &session->slots[session->inputs + i];
    if (a->count != b->count) return my_npu_fail(call, DG_E_INVALID_ARGUMENT, DG_NO_NODE, "operands of different sizes");
    if (made->capacity < a->count) {
        float *room = realloc(made->room, (size_t)a->count * sizeof *room);
        if (!room) return my_npu_fail(call, DG_E_OUT_OF_MEMORY, DG_NO_NODE, "out of memory");
        made->room = room;
        made->capacity = a->count;
    }
    /* The chip would run here. Work for several cores goes to `call->host->parallel_for`: make no threads of your own. */
    s->op->run(a->count, a->data, s->op->operands > 1 ? b->data : NULL, made->room);
    made->data = made->room;
    made->count = a->count;
    made->origin = a->origin;
    return DG_OK;
}

dg_status my_npu_session_execute(dg_session *session, const dg_call *call, const dg_tensor *const *inputs,
                                 uint64_t input_count, dg_tensor *const *outputs, uint64_t output_count) {
    if (input_count != session->inputs || output_count != session->outputs)
        return my_npu_fail(call, DG_E_INVALID_ARGUMENT, DG_NO_NODE, "another number of tensors than was compiled for");
    for (uint32_t i = 0; i < session->inputs; i++) {
        slot *given = &session->slots[i];
        if (!MY_NPU_REACHES(inputs[i], dg_tensor, data_size)) return my_npu_bad_struct(call, "dg_tensor");
        given->data = inputs[i]->data;
        given->count = elements(inputs[i]);
        given->origin = i;
        if (given->count == UINT64_MAX) return my_npu_fail(call, DG_E_INVALID_ARGUMENT, DG_NO_NODE, "an input is not f32");
    }
    for (uint32_t i = 0; i < session->outputs; i++)
        if (!MY_NPU_REACHES(outputs[i], dg_tensor, data_size)) return my_npu_bad_struct(call, "dg_tensor");
    for (uint32_t i = 0; i < session->steps; i++) {
        dg_status status = run_step(session, call, i);
        if (status != DG_OK) return status;
    }
    for (uint32_t i = 0; i < session->outputs; i++) {
        /* An output comes with its largest sizes; the actual ones are stated here. */
        const slot *from = &session->slots[session->output[i]];
        const dg_tensor *like = inputs[from->origin];
        dg_tensor *out = outputs[i];
        int fits = out->rank == like->rank && out->dtype == DG_DTYPE_F32;
        for (uint32_t d = 0; fits && d < out->rank; d++) fits = like->sizes[d] <= out->sizes[d];
        if (!fits || from->count > out->data_size / sizeof(float))
            return my_npu_fail(call, DG_E_SHAPE_OUT_OF_RANGE, DG_NO_NODE, "an output is larger than its bounds");
        for (uint32_t d = 0; d < out->rank; d++) out->sizes[d] = like->sizes[d];
        if (from->count) memcpy(out->data, from->data, (size_t)from->count * sizeof(float));
    }
    return DG_OK;
}
