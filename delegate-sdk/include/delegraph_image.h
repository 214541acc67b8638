/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/* Reads a graph image (`DGG1`, see delegraph.h) in C99 or C++: header only, no allocation, no state.
 *
 *     dg_image image;
 *     if (dg_image_open(graph->image, graph->image_size, &image) != DG_OK) return DG_E_INVALID_ARGUMENT;
 *     for (uint32_t n = 0; n < dg_image_node_count(&image); n++) {
 *         if (dg_text_is(dg_image_node_op(&image, n), DG_OP_ATEN_ADD_TENSOR)) ...
 *     }
 *
 * - Nodes, values, weights, expressions and symbols are named by their index. In place of an index there may be DG_NONE.
 * - The host has verified the image. The functions here do not rely on it: none reads outside of the bytes that were given to
 *   `dg_image_open`, whatever they hold. An index that is too large gives a record of zeros, DG_NONE, or an empty text.
 *   Bytes that nobody verified may still be nonsense: an index that was read is then past its table, a list very long.
 * - Tables of unknown kinds are stepped over, and what newer versions append to a record too.
 * - Texts are not ended by NUL: pointer and size.
 * - A `dg_image` only refers to the bytes. It may be copied, and read on any number of threads, as long as they stay.
 * - What a function gives through a pointer is written only if it returns 1.
 */

#ifndef DELEGRAPH_IMAGE_H
#define DELEGRAPH_IMAGE_H

#include "delegraph.h"

#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Number of kinds of tables that this header knows. */
#define DG_IMAGE_KINDS 13
/* Bytes of the header and of a record of the directory at the first minor of the format. */
#define DG_IMAGE_FIRST_HEADER 48
#define DG_IMAGE_FIRST_ENTRY 24

/* A text: UTF-8, not ended by NUL. */
typedef struct dg_text {
    const char *data;
    uint64_t size;
} dg_text;

/* Where a table lies. */
typedef struct dg_image_span {
    const uint8_t *data;
    uint32_t record_size;
    uint32_t count;
} dg_image_span;

/* An opened image. Fields are for the functions here. */
typedef struct dg_image {
    const uint8_t *bytes;
    uint64_t size;
    dg_image_span tables[DG_IMAGE_KINDS + 1];
} dg_image;

/* ------------------------------------------------------------------------------------------------------- texts and bytes */

/* The text of a string that ends with NUL. */
static inline dg_text dg_text_of(const char *string) {
    dg_text text;
    text.data = string;
    text.size = string ? (uint64_t)strlen(string) : 0;
    return text;
}

/* 1 if the text is this string. */
static inline int dg_text_is(dg_text text, const char *string) {
    dg_text other = dg_text_of(string);
    return text.size == other.size && (text.size == 0 || memcmp(text.data, other.data, (size_t)text.size) == 0);
}

/* Little-endian, at any address. */
static inline uint32_t dg_load_u32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Little-endian, at any address. */
static inline uint64_t dg_load_u64(const uint8_t *at) {
    return (uint64_t)dg_load_u32(at) | (uint64_t)dg_load_u32(at + 4) << 32;
}

/* The same bits as a signed integer. */
static inline int64_t dg_bits_i64(uint64_t bits) {
    int64_t value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The same bits as a float. */
static inline double dg_bits_f64(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Bytes of an element; 0: a type that this header does not know. */
static inline uint32_t dg_dtype_size(dg_dtype dtype) {
    switch (dtype) {
    case DG_DTYPE_U8: case DG_DTYPE_I8: case DG_DTYPE_BOOL: case DG_DTYPE_F8E5M2: case DG_DTYPE_F8E4M3: return 1;
    case DG_DTYPE_I16: case DG_DTYPE_U16: case DG_DTYPE_F16: case DG_DTYPE_BF16: return 2;
    case DG_DTYPE_I32: case DG_DTYPE_U32: case DG_DTYPE_F32: return 4;
    case DG_DTYPE_I64: case DG_DTYPE_U64: case DG_DTYPE_F64: case DG_DTYPE_C64: return 8;
    case DG_DTYPE_C128: return 16;
    default: return 0;
    }
}

/* Bytes of a kind's record at the first minor of the format; 0: an unknown kind. All that is read here lies within them, so
 * that images of older writers are read as well as those of newer ones. */
static inline uint32_t dg_image_smallest(dg_image_table_kind kind) {
    switch (kind) {
    case DG_IMAGE_STRINGS: return 1;
    case DG_IMAGE_INDICES: case DG_IMAGE_INPUTS: case DG_IMAGE_OUTPUTS: return 4;
    case DG_IMAGE_WORDS: return 8;
    case DG_IMAGE_ARGS: return 16;
    case DG_IMAGE_SYMBOLS: case DG_IMAGE_EXPRS: case DG_IMAGE_WEIGHTS: case DG_IMAGE_STATES: return 24;
    case DG_IMAGE_VALUES: case DG_IMAGE_NODES: return 40;
    case DG_IMAGE_QUANTS: return 56;
    default: return 0;
    }
}

/* A record, or NULL past the end of its table. At least `dg_image_smallest` bytes can be read there. */
static inline const uint8_t *dg_image_record(const dg_image *image, dg_image_table_kind kind, uint32_t index) {
    const dg_image_span *table = &image->tables[kind <= DG_IMAGE_KINDS ? kind : 0];
    return index < table->count ? table->data + (size_t)table->record_size * index : NULL;
}

/* An item of a list: 1 and the index in INDICES or WORDS, if it is within the list and the table. */
static inline int dg_image_item(const dg_image *image, dg_image_table_kind kind, uint64_t start, uint64_t count,
                                uint64_t item, uint32_t *out) {
    uint64_t limit = image->tables[kind].count;
    if (item >= count || start > limit || item >= limit - start) return 0;
    *out = (uint32_t)(start + item);
    return 1;
}

/* An item of a list in INDICES; DG_NONE past its end. */
static inline uint32_t dg_image_index(const dg_image *image, dg_image_table_kind kind, uint64_t start, uint64_t count,
                                      uint64_t item) {
    uint32_t at;
    return dg_image_item(image, kind, start, count, item, &at) ? dg_load_u32(dg_image_record(image, kind, at)) : DG_NONE;
}

/* A text in STRINGS; empty if it lies outside. */
static inline dg_text dg_image_text(const dg_image *image, uint64_t offset, uint64_t size) {
    const dg_image_span *strings = &image->tables[DG_IMAGE_STRINGS];
    dg_text text;
    int inside = offset <= strings->count && size <= strings->count - offset && size > 0;
    text.data = inside ? (const char *)strings->data + (size_t)offset : "";
    text.size = inside ? size : 0;
    return text;
}

/* -------------------------------------------------------------------------------------------------------------- the graph */

/* Reads the directory. On anything but DG_OK `image` is not to be used. DG_E_UNSUPPORTED: another major version of the
 * format. DG_E_INVALID_ARGUMENT: no graph image, or one that is cut, or a table that lies outside. */
static inline dg_status dg_image_open(const uint8_t *bytes, uint64_t size, dg_image *image) {
    uint32_t header_size, table_count, table_size, i;
    memset(image, 0, sizeof *image);
    if (!bytes || size < DG_IMAGE_FIRST_HEADER || size > (uint64_t)(SIZE_MAX / 2)) return DG_E_INVALID_ARGUMENT;
    if (dg_load_u32(bytes) != DG_IMAGE_MAGIC) return DG_E_INVALID_ARGUMENT;
    if ((dg_load_u32(bytes + offsetof(dg_image_header, major)) & 0xffff) != DG_IMAGE_MAJOR) return DG_E_UNSUPPORTED;
    if (dg_load_u64(bytes + offsetof(dg_image_header, total_size)) != size) return DG_E_INVALID_ARGUMENT;
    header_size = dg_load_u32(bytes + offsetof(dg_image_header, header_size));
    table_count = dg_load_u32(bytes + offsetof(dg_image_header, table_count));
    table_size = dg_load_u32(bytes + offsetof(dg_image_header, table_size));
    if (header_size < DG_IMAGE_FIRST_HEADER || header_size > size || table_size < DG_IMAGE_FIRST_ENTRY ||
        table_count > (size - header_size) / table_size)
        return DG_E_INVALID_ARGUMENT;
    image->bytes = bytes;
    image->size = size;
    for (i = 0; i < table_count; i++) {
        const uint8_t *entry = bytes + header_size + (size_t)table_size * i;
        dg_image_table_kind kind = dg_load_u32(entry + offsetof(dg_image_table, kind));
        uint32_t record_size = dg_load_u32(entry + offsetof(dg_image_table, record_size));
        uint64_t offset = dg_load_u64(entry + offsetof(dg_image_table, offset));
        uint64_t count = dg_load_u64(entry + offsetof(dg_image_table, count));
        uint32_t smallest = dg_image_smallest(kind);
        if (smallest == 0) continue;
        /* Lists are read with the stride of their items; records may have grown. */
        if (record_size < smallest || (smallest <= 4 && record_size != smallest)) return DG_E_INVALID_ARGUMENT;
        if (offset > size || count >= DG_NONE || count > (size - offset) / record_size || image->tables[kind].data)
            return DG_E_INVALID_ARGUMENT;
        image->tables[kind].data = bytes + (size_t)offset;
        image->tables[kind].record_size = record_size;
        image->tables[kind].count = (uint32_t)count;
    }
    return DG_OK;
}

/* Name of the graph. */
static inline dg_text dg_image_name(const dg_image *image) {
    return dg_image_text(image, dg_load_u32(image->bytes + offsetof(dg_image_header, name_offset)),
                         dg_load_u32(image->bytes + offsetof(dg_image_header, name_size)));
}

/* Version of the operator table, as DG_OPSET. */
static inline dg_text dg_image_opset(const dg_image *image) {
    return dg_image_text(image, dg_load_u32(image->bytes + offsetof(dg_image_header, opset_offset)),
                         dg_load_u32(image->bytes + offsetof(dg_image_header, opset_size)));
}

/* Normal form of the graph; 0: functional ATen with composite operators. */
static inline uint32_t dg_image_normal_form(const dg_image *image) {
    return dg_load_u32(image->bytes + offsetof(dg_image_header, normal_form));
}

static inline uint32_t dg_image_node_count(const dg_image *image) { return image->tables[DG_IMAGE_NODES].count; }
static inline uint32_t dg_image_value_count(const dg_image *image) { return image->tables[DG_IMAGE_VALUES].count; }
static inline uint32_t dg_image_weight_count(const dg_image *image) { return image->tables[DG_IMAGE_WEIGHTS].count; }
static inline uint32_t dg_image_expr_count(const dg_image *image) { return image->tables[DG_IMAGE_EXPRS].count; }
static inline uint32_t dg_image_symbol_count(const dg_image *image) { return image->tables[DG_IMAGE_SYMBOLS].count; }
static inline uint32_t dg_image_input_count(const dg_image *image) { return image->tables[DG_IMAGE_INPUTS].count; }
static inline uint32_t dg_image_output_count(const dg_image *image) { return image->tables[DG_IMAGE_OUTPUTS].count; }

/* The value that the caller gives at this position. */
static inline uint32_t dg_image_input(const dg_image *image, uint32_t position) {
    return dg_image_index(image, DG_IMAGE_INPUTS, 0, dg_image_input_count(image), position);
}

/* The value that the caller gets at this position. */
static inline uint32_t dg_image_output(const dg_image *image, uint32_t position) {
    return dg_image_index(image, DG_IMAGE_OUTPUTS, 0, dg_image_output_count(image), position);
}

static inline uint32_t dg_image_state_count(const dg_image *image) { return image->tables[DG_IMAGE_STATES].count; }

/* A state: positions of its input and output, and the dimension along which it grows. */
static inline dg_image_state dg_image_state_at(const dg_image *image, uint32_t state) {
    const uint8_t *at = dg_image_record(image, DG_IMAGE_STATES, state);
    dg_image_state record;
    memset(&record, 0, sizeof record);
    if (at) {
        record.name_offset = dg_load_u32(at + offsetof(dg_image_state, name_offset));
        record.name_size = dg_load_u32(at + offsetof(dg_image_state, name_size));
        record.input = dg_load_u32(at + offsetof(dg_image_state, input));
        record.output = dg_load_u32(at + offsetof(dg_image_state, output));
        record.growth_axis = dg_load_u32(at + offsetof(dg_image_state, growth_axis));
    }
    return record;
}

/* A state's name: one state for all graphs of a program that use it. */
static inline dg_text dg_image_state_name(const dg_image *image, uint32_t state) {
    dg_image_state record = dg_image_state_at(image, state);
    return dg_image_text(image, record.name_offset, record.name_size);
}

/* ------------------------------------------------------------------------------------------------------ sizes and symbols */

/* A size expression. */
static inline dg_image_expr dg_image_expr_at(const dg_image *image, uint32_t expr) {
    const uint8_t *at = dg_image_record(image, DG_IMAGE_EXPRS, expr);
    dg_image_expr record;
    memset(&record, 0, sizeof record);
    if (at) {
        record.kind = dg_load_u32(at + offsetof(dg_image_expr, kind));
        record.code = dg_load_u32(at + offsetof(dg_image_expr, code));
        record.value = dg_bits_i64(dg_load_u64(at + offsetof(dg_image_expr, value)));
        record.start = dg_load_u32(at + offsetof(dg_image_expr, start));
        record.count = dg_load_u32(at + offsetof(dg_image_expr, count));
    }
    return record;
}

/* An operand of a DG_EXPR_OP: an earlier expression. Operands may be shared: walk the table, not the tree. */
static inline uint32_t dg_image_expr_operand(const dg_image *image, uint32_t expr, uint32_t position) {
    dg_image_expr record = dg_image_expr_at(image, expr);
    return record.kind == DG_EXPR_OP ? dg_image_index(image, DG_IMAGE_INDICES, record.start, record.count, position)
                                     : DG_NONE;
}

/* 1 and the integer that an expression is, if it is a constant one. */
static inline int dg_image_expr_int(const dg_image *image, uint32_t expr, int64_t *out) {
    dg_image_expr record = dg_image_expr_at(image, expr);
    if (record.kind != DG_EXPR_INT) return 0;
    *out = record.value;
    return 1;
}

/* A dynamic size: its range. */
static inline dg_image_symbol dg_image_symbol_at(const dg_image *image, uint32_t symbol) {
    const uint8_t *at = dg_image_record(image, DG_IMAGE_SYMBOLS, symbol);
    dg_image_symbol record;
    memset(&record, 0, sizeof record);
    if (at) {
        record.name_offset = dg_load_u32(at + offsetof(dg_image_symbol, name_offset));
        record.name_size = dg_load_u32(at + offsetof(dg_image_symbol, name_size));
        record.min = dg_bits_i64(dg_load_u64(at + offsetof(dg_image_symbol, min)));
        record.max = dg_bits_i64(dg_load_u64(at + offsetof(dg_image_symbol, max)));
    }
    return record;
}

/* Its name, as torch.export names it. */
static inline dg_text dg_image_symbol_name(const dg_image *image, uint32_t symbol) {
    dg_image_symbol record = dg_image_symbol_at(image, symbol);
    return dg_image_text(image, record.name_offset, record.name_size);
}

/* ------------------------------------------------------------------------------------------------------------------ nodes */

/* A node. */
static inline dg_image_node dg_image_node_at(const dg_image *image, uint32_t node) {
    const uint8_t *at = dg_image_record(image, DG_IMAGE_NODES, node);
    dg_image_node record;
    memset(&record, 0, sizeof record);
    if (at) {
        record.name_offset = dg_load_u32(at + offsetof(dg_image_node, name_offset));
        record.name_size = dg_load_u32(at + offsetof(dg_image_node, name_size));
        record.op_offset = dg_load_u32(at + offsetof(dg_image_node, op_offset));
        record.op_size = dg_load_u32(at + offsetof(dg_image_node, op_size));
        record.args_start = dg_load_u32(at + offsetof(dg_image_node, args_start));
        record.args_count = dg_load_u32(at + offsetof(dg_image_node, args_count));
        record.outputs_start = dg_load_u32(at + offsetof(dg_image_node, outputs_start));
        record.outputs_count = dg_load_u32(at + offsetof(dg_image_node, outputs_count));
        record.debug_offset = dg_load_u32(at + offsetof(dg_image_node, debug_offset));
        record.debug_size = dg_load_u32(at + offsetof(dg_image_node, debug_size));
    }
    return record;
}

/* Operator with overload: compare with the names of delegraph_ops.h. */
static inline dg_text dg_image_node_op(const dg_image *image, uint32_t node) {
    dg_image_node record = dg_image_node_at(image, node);
    return dg_image_text(image, record.op_offset, record.op_size);
}

/* Name, unique within the graph. */
static inline dg_text dg_image_node_name(const dg_image *image, uint32_t node) {
    dg_image_node record = dg_image_node_at(image, node);
    return dg_image_text(image, record.name_offset, record.name_size);
}

/* Source line of the exporting program; may be empty. */
static inline dg_text dg_image_node_debug(const dg_image *image, uint32_t node) {
    dg_image_node record = dg_image_node_at(image, node);
    return dg_image_text(image, record.debug_offset, record.debug_size);
}

static inline uint32_t dg_image_node_arg_count(const dg_image *image, uint32_t node) {
    return dg_image_node_at(image, node).args_count;
}

static inline uint32_t dg_image_node_output_count(const dg_image *image, uint32_t node) {
    return dg_image_node_at(image, node).outputs_count;
}

/* A value that the node makes. */
static inline uint32_t dg_image_node_output(const dg_image *image, uint32_t node, uint32_t position) {
    dg_image_node record = dg_image_node_at(image, node);
    return dg_image_index(image, DG_IMAGE_INDICES, record.outputs_start, record.outputs_count, position);
}

/* -------------------------------------------------------------------------------------------------------------- arguments */

/* The argument of the i-th parameter of the operator's schema, defaults filled in; DG_ARG_NONE past the last. */
static inline dg_image_arg dg_image_node_arg(const dg_image *image, uint32_t node, uint32_t position) {
    dg_image_node owner = dg_image_node_at(image, node);
    dg_image_arg record;
    uint32_t index;
    memset(&record, 0, sizeof record);
    if (dg_image_item(image, DG_IMAGE_ARGS, owner.args_start, owner.args_count, position, &index)) {
        const uint8_t *at = dg_image_record(image, DG_IMAGE_ARGS, index);
        record.kind = dg_load_u32(at + offsetof(dg_image_arg, kind));
        record.count = dg_load_u32(at + offsetof(dg_image_arg, count));
        record.value = dg_load_u64(at + offsetof(dg_image_arg, value));
    }
    return record;
}

/* The value (a tensor, or a number read at run time); DG_NONE if it is none. */
static inline uint32_t dg_image_arg_value(dg_image_arg arg) {
    return arg.kind == DG_ARG_VALUE ? (uint32_t)arg.value : DG_NONE;
}

/* 1 and the integer, if it is a constant one. */
static inline int dg_image_arg_int(dg_image_arg arg, int64_t *out) {
    if (arg.kind != DG_ARG_INT) return 0;
    *out = dg_bits_i64(arg.value);
    return 1;
}

/* 1 and 0 or 1, if it is a constant boolean. */
static inline int dg_image_arg_bool(dg_image_arg arg, int *out) {
    if (arg.kind != DG_ARG_BOOL) return 0;
    *out = arg.value != 0;
    return 1;
}

/* 1 and the number, if it is a constant integer, float or boolean. */
static inline int dg_image_arg_number(dg_image_arg arg, double *out) {
    if (arg.kind == DG_ARG_INT) *out = (double)dg_bits_i64(arg.value);
    else if (arg.kind == DG_ARG_FLOAT) *out = dg_bits_f64(arg.value);
    else if (arg.kind == DG_ARG_BOOL) *out = arg.value != 0;
    else return 0;
    return 1;
}

/* The text; empty if it is none. */
static inline dg_text dg_image_arg_text(const dg_image *image, dg_image_arg arg) {
    return dg_image_text(image, arg.value, arg.kind == DG_ARG_STR ? arg.count : 0);
}

/* An item of DG_ARG_INTS, as an expression. */
static inline uint32_t dg_image_arg_item_expr(const dg_image *image, dg_image_arg arg, uint32_t item) {
    return dg_image_index(image, DG_IMAGE_INDICES, arg.value, arg.kind == DG_ARG_INTS ? arg.count : 0, item);
}

/* 1 and an item of DG_ARG_INTS, if it is a constant one. */
static inline int dg_image_arg_item_int(const dg_image *image, dg_image_arg arg, uint32_t item, int64_t *out) {
    return dg_image_expr_int(image, dg_image_arg_item_expr(image, arg, item), out);
}

/* An item of DG_ARG_FLOATS, DG_ARG_BOOLS or DG_ARG_SCALARS as an argument by itself: read it with `dg_image_arg_int`,
 * `_bool` or `_number`. DG_ARG_NONE for other lists and past the end. */
static inline dg_image_arg dg_image_arg_item_scalar(const dg_image *image, dg_image_arg arg, uint32_t item) {
    uint64_t width = arg.kind == DG_ARG_SCALARS ? 2 : 1;
    uint64_t last = width * item + width - 1;
    dg_image_arg record;
    uint32_t at;
    memset(&record, 0, sizeof record);
    if (arg.kind != DG_ARG_FLOATS && arg.kind != DG_ARG_BOOLS && arg.kind != DG_ARG_SCALARS) return record;
    if (!dg_image_item(image, DG_IMAGE_WORDS, arg.value, width * arg.count, last, &at)) return record;
    record.value = dg_load_u64(dg_image_record(image, DG_IMAGE_WORDS, at));
    record.kind = arg.kind == DG_ARG_BOOLS ? DG_ARG_BOOL : DG_ARG_FLOAT;
    if (arg.kind == DG_ARG_SCALARS) record.kind = dg_load_u32(dg_image_record(image, DG_IMAGE_WORDS, at - 1));
    return record;
}

/* An item of DG_ARG_VALUES or DG_ARG_OPTIONAL_VALUES; DG_NONE where an optional one is absent. */
static inline uint32_t dg_image_arg_item_value(const dg_image *image, dg_image_arg arg, uint32_t item) {
    int list = arg.kind == DG_ARG_VALUES || arg.kind == DG_ARG_OPTIONAL_VALUES;
    return dg_image_index(image, DG_IMAGE_INDICES, arg.value, list ? arg.count : 0, item);
}

/* ----------------------------------------------------------------------------------------------------------------- values */

/* A value. */
static inline dg_image_value dg_image_value_at(const dg_image *image, uint32_t value) {
    const uint8_t *at = dg_image_record(image, DG_IMAGE_VALUES, value);
    dg_image_value record;
    memset(&record, 0, sizeof record);
    record.dtype = record.quant = record.expr = record.source_index = DG_NONE;
    if (at) {
        record.name_offset = dg_load_u32(at + offsetof(dg_image_value, name_offset));
        record.name_size = dg_load_u32(at + offsetof(dg_image_value, name_size));
        record.type = dg_load_u32(at + offsetof(dg_image_value, type));
        record.dtype = dg_load_u32(at + offsetof(dg_image_value, dtype));
        record.dims_start = dg_load_u32(at + offsetof(dg_image_value, dims_start));
        record.rank = dg_load_u32(at + offsetof(dg_image_value, rank));
        record.quant = dg_load_u32(at + offsetof(dg_image_value, quant));
        record.expr = dg_load_u32(at + offsetof(dg_image_value, expr));
        record.source = dg_load_u32(at + offsetof(dg_image_value, source));
        record.source_index = dg_load_u32(at + offsetof(dg_image_value, source_index));
    }
    return record;
}

/* Its name. */
static inline dg_text dg_image_value_name(const dg_image *image, uint32_t value) {
    dg_image_value record = dg_image_value_at(image, value);
    return dg_image_text(image, record.name_offset, record.name_size);
}

/* Element type of a tensor; DG_NONE if it is none. */
static inline dg_dtype dg_image_value_dtype(const dg_image *image, uint32_t value) {
    dg_image_value record = dg_image_value_at(image, value);
    return record.type == DG_VALUE_TENSOR ? record.dtype : DG_NONE;
}

/* Number of dimensions of a tensor; never more than DG_MAX_RANK. */
static inline uint32_t dg_image_value_rank(const dg_image *image, uint32_t value) {
    dg_image_value record = dg_image_value_at(image, value);
    return record.type != DG_VALUE_TENSOR ? 0 : record.rank < DG_MAX_RANK ? record.rank : DG_MAX_RANK;
}

/* A size of a tensor, as an expression. Sizes that are the same expression are equal, whatever they are. */
static inline uint32_t dg_image_value_dim(const dg_image *image, uint32_t value, uint32_t dimension) {
    dg_image_value record = dg_image_value_at(image, value);
    return dg_image_index(image, DG_IMAGE_INDICES, record.dims_start, dg_image_value_rank(image, value), dimension);
}

/* 1 and a size of a tensor, if it is constant. */
static inline int dg_image_value_size(const dg_image *image, uint32_t value, uint32_t dimension, int64_t *out) {
    return dg_image_expr_int(image, dg_image_value_dim(image, value, dimension), out);
}

/* 1 and all sizes of a tensor (there is room for DG_MAX_RANK), if all are constant. Some may be written if not. */
static inline int dg_image_value_sizes(const dg_image *image, uint32_t value, int64_t *out) {
    uint32_t d, rank = dg_image_value_rank(image, value);
    if (dg_image_value_at(image, value).type != DG_VALUE_TENSOR) return 0;
    for (d = 0; d < rank; d++)
        if (!dg_image_value_size(image, value, d, &out[d])) return 0;
    return 1;
}

/* 1 if both are tensors of the same sizes, as far as expressions tell: constant or not. */
static inline int dg_image_same_sizes(const dg_image *image, uint32_t a, uint32_t b) {
    uint32_t d, rank = dg_image_value_rank(image, a);
    if (dg_image_value_dtype(image, a) == DG_NONE || dg_image_value_dtype(image, b) == DG_NONE) return 0;
    if (rank != dg_image_value_rank(image, b)) return 0;
    for (d = 0; d < rank; d++)
        if (dg_image_value_dim(image, a, d) != dg_image_value_dim(image, b, d)) return 0;
    return 1;
}

/* The weight that it is; DG_NONE if it is none. */
static inline uint32_t dg_image_value_weight(const dg_image *image, uint32_t value) {
    dg_image_value record = dg_image_value_at(image, value);
    return record.source == DG_SOURCE_WEIGHT ? record.source_index : DG_NONE;
}

/* 1 and how its integers stand for real numbers, if they do. */
static inline int dg_image_value_quant(const dg_image *image, uint32_t value, dg_image_quant *out) {
    const uint8_t *at = dg_image_record(image, DG_IMAGE_QUANTS, dg_image_value_at(image, value).quant);
    if (!at || dg_image_value_dtype(image, value) == DG_NONE) return 0;
    out->kind = dg_load_u32(at + offsetof(dg_image_quant, kind));
    out->axis = dg_load_u32(at + offsetof(dg_image_quant, axis));
    out->scale = dg_bits_f64(dg_load_u64(at + offsetof(dg_image_quant, scale)));
    out->zero_point = dg_bits_i64(dg_load_u64(at + offsetof(dg_image_quant, zero_point)));
    out->quant_min = dg_bits_i64(dg_load_u64(at + offsetof(dg_image_quant, quant_min)));
    out->quant_max = dg_bits_i64(dg_load_u64(at + offsetof(dg_image_quant, quant_max)));
    out->scales = dg_load_u32(at + offsetof(dg_image_quant, scales));
    out->zero_points = dg_load_u32(at + offsetof(dg_image_quant, zero_points));
    out->block_start = dg_load_u32(at + offsetof(dg_image_quant, block_start));
    out->block_count = dg_load_u32(at + offsetof(dg_image_quant, block_count));
    return 1;
}

/* Size of a block of a DG_QUANT_PER_BLOCK along a dimension; DG_NONE for other kinds. */
static inline uint32_t dg_image_quant_block(const dg_image *image, const dg_image_quant *quant, uint32_t dimension) {
    uint32_t count = quant->kind == DG_QUANT_PER_BLOCK ? quant->block_count : 0;
    return dg_image_index(image, DG_IMAGE_INDICES, quant->block_start, count, dimension);
}

/* ---------------------------------------------------------------------------------------------------------------- weights */

/* A weight: its id for `weight_map`, element type, bytes and rank. */
static inline dg_image_weight dg_image_weight_at(const dg_image *image, uint32_t weight) {
    const uint8_t *at = dg_image_record(image, DG_IMAGE_WEIGHTS, weight);
    dg_image_weight record;
    memset(&record, 0, sizeof record);
    record.id = record.dtype = DG_NONE;
    if (at) {
        record.id = dg_load_u32(at + offsetof(dg_image_weight, id));
        record.dtype = dg_load_u32(at + offsetof(dg_image_weight, dtype));
        record.byte_size = dg_load_u64(at + offsetof(dg_image_weight, byte_size));
        record.sizes_start = dg_load_u32(at + offsetof(dg_image_weight, sizes_start));
        record.rank = dg_load_u32(at + offsetof(dg_image_weight, rank));
    }
    return record;
}

/* 1 and a size of a weight. */
static inline int dg_image_weight_size(const dg_image *image, uint32_t weight, uint32_t dimension, int64_t *out) {
    dg_image_weight record = dg_image_weight_at(image, weight);
    uint32_t at;
    if (!dg_image_item(image, DG_IMAGE_WORDS, record.sizes_start, record.rank, dimension, &at)) return 0;
    *out = dg_bits_i64(dg_load_u64(dg_image_record(image, DG_IMAGE_WORDS, at)));
    return 1;
}

#ifdef __cplusplus
}
#endif

#endif /* DELEGRAPH_IMAGE_H */
