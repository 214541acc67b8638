/* Lists graph images through delegraph_image.h, for a test that compares the listing with the Rust view's.
 *
 *     list_image FILE               prints the listing
 *     list_image --damage N FILE    walks N damaged copies of it, and prints how many could be opened
 *
 * A copy lies in memory of exactly its size, so that a sanitizer or valgrind sees every byte that is read beside it.
 */

#include "delegraph_image.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Where the listing goes; NULL: nowhere, everything is only read. */
static FILE *out;
/* So that nothing that is read is optimized away. */
static volatile uint64_t seen;

static void text(const char *before, dg_text t) {
    uint64_t i;
    for (i = 0; i < t.size; i++) seen += (unsigned char)t.data[i];
    if (out) fprintf(out, "%s%.*s", before, (int)t.size, t.data);
}

static void number(const char *before, int64_t value) {
    seen += (uint64_t)value;
    if (out) fprintf(out, "%s%" PRId64, before, value);
}

/* An index, `-` for none. */
static void index_of(const char *before, uint32_t value) {
    if (value == DG_NONE && out) fprintf(out, "%s-", before);
    if (value != DG_NONE) number(before, value);
}

static void bits(const char *before, double value) {
    uint64_t word;
    memcpy(&word, &value, sizeof word);
    seen += word;
    if (out) fprintf(out, "%s%016" PRIx64, before, word);
}

static void word(const char *string) {
    if (out) fputs(string, out);
}

static void expression(const dg_image *image, uint32_t e) {
    dg_image_expr record = dg_image_expr_at(image, e);
    uint32_t i;
    number("expr ", e);
    switch (record.kind) {
    case DG_EXPR_INT: number(" int ", record.value); break;
    case DG_EXPR_FLOAT: bits(" float ", dg_bits_f64((uint64_t)record.value)); break;
    case DG_EXPR_SYMBOL: number(" symbol ", record.code); break;
    default:
        number(" op ", record.code);
        for (i = 0; dg_image_expr_operand(image, e, i) != DG_NONE; i++) number(" ", dg_image_expr_operand(image, e, i));
    }
    word("\n");
}

static void value(const dg_image *image, uint32_t v) {
    dg_image_value record = dg_image_value_at(image, v);
    dg_image_quant quant;
    int64_t sizes[DG_MAX_RANK];
    uint32_t i, rank = dg_image_value_rank(image, v);
    number("value ", v);
    text(" ", dg_image_value_name(image, v));
    switch (record.type) {
    case DG_VALUE_TENSOR:
        number(" tensor ", dg_image_value_dtype(image, v));
        for (i = 0; i < rank; i++) index_of(" ", dg_image_value_dim(image, v, i));
        if (dg_image_value_sizes(image, v, sizes)) {
            word(" sizes");
            for (i = 0; i < rank; i++) number(" ", sizes[i]);
        }
        break;
    case DG_VALUE_INT: number(" int ", record.expr); break;
    case DG_VALUE_FLOAT: word(" float"); break;
    default: word(" bool");
    }
    number(" source ", record.source);
    number(" ", record.source_index);
    index_of(" weight ", dg_image_value_weight(image, v));
    if (dg_image_value_quant(image, v, &quant)) {
        number(" quant ", quant.kind);
        if (quant.kind == DG_QUANT_PER_TENSOR) {
            bits(" ", quant.scale);
            number(" ", quant.zero_point);
        } else {
            if (quant.kind == DG_QUANT_PER_AXIS) number(" axis ", quant.axis);
            for (i = 0; dg_image_quant_block(image, &quant, i) != DG_NONE; i++)
                number(" block ", dg_image_quant_block(image, &quant, i));
            number(" scales ", quant.scales);
            index_of(" zero_points ", quant.zero_points);
        }
        number(" from ", quant.quant_min);
        number(" to ", quant.quant_max);
    }
    word("\n");
}

static void scalar(dg_image_arg arg) {
    int64_t i;
    double f;
    int b;
    if (dg_image_arg_int(arg, &i)) number(" int ", i);
    else if (dg_image_arg_bool(arg, &b)) number(" bool ", b);
    else if (dg_image_arg_number(arg, &f)) bits(" float ", f);
}

static void argument(const dg_image *image, dg_image_arg arg) {
    /* A list of nobody's checking may claim any length: every item past the table is DG_NONE, so a bound loses nothing. */
    uint32_t i, count = arg.count < 100000 ? arg.count : 100000;
    int64_t size;
    word("  arg");
    switch (arg.kind) {
    case DG_ARG_NONE: word(" none"); break;
    case DG_ARG_INT: case DG_ARG_FLOAT: case DG_ARG_BOOL: scalar(arg); break;
    case DG_ARG_EXPR: number(" expr ", (int64_t)arg.value); break;
    case DG_ARG_STR: text(" text ", dg_image_arg_text(image, arg)); break;
    case DG_ARG_DTYPE: number(" dtype ", (int64_t)arg.value); break;
    case DG_ARG_MEMORY_FORMAT: number(" memory_format ", (int64_t)arg.value); break;
    case DG_ARG_VALUE: number(" value ", dg_image_arg_value(arg)); break;
    case DG_ARG_INTS:
        word(" ints");
        for (i = 0; i < count; i++) {
            index_of(" e", dg_image_arg_item_expr(image, arg, i));
            if (dg_image_arg_item_int(image, arg, i, &size)) number("=", size);
        }
        break;
    case DG_ARG_FLOATS: case DG_ARG_BOOLS: case DG_ARG_SCALARS:
        word(" numbers");
        for (i = 0; i < count; i++) scalar(dg_image_arg_item_scalar(image, arg, i));
        break;
    case DG_ARG_VALUES: case DG_ARG_OPTIONAL_VALUES:
        word(" values");
        for (i = 0; i < count; i++) index_of(" ", dg_image_arg_item_value(image, arg, i));
        break;
    default: number(" unknown ", arg.kind);
    }
    word("\n");
}

static void node(const dg_image *image, uint32_t n) {
    uint32_t i, args = dg_image_node_arg_count(image, n), outputs = dg_image_node_output_count(image, n);
    number("node ", n);
    text(" ", dg_image_node_name(image, n));
    text(" ", dg_image_node_op(image, n));
    text(" ", dg_image_node_debug(image, n));
    word("\n");
    for (i = 0; i < args && i < 100000; i++) argument(image, dg_image_node_arg(image, n, i));
    for (i = 0; i < outputs && i < 100000; i++) index_of("  gives ", dg_image_node_output(image, n, i));
    word("\n");
}

static dg_status list(const uint8_t *bytes, uint64_t size) {
    dg_image image;
    uint32_t i, d;
    dg_status status = dg_image_open(bytes, size, &image);
    if (status != DG_OK) return status;
    text("graph ", dg_image_name(&image));
    text(" opset ", dg_image_opset(&image));
    number(" form ", dg_image_normal_form(&image));
    word("\n");
    for (i = 0; i < dg_image_symbol_count(&image); i++) {
        dg_image_symbol symbol = dg_image_symbol_at(&image, i);
        number("symbol ", i);
        text(" ", dg_image_symbol_name(&image, i));
        number(" ", symbol.min);
        number(" ", symbol.max);
        word("\n");
    }
    for (i = 0; i < dg_image_expr_count(&image); i++) expression(&image, i);
    for (i = 0; i < dg_image_weight_count(&image); i++) {
        dg_image_weight weight = dg_image_weight_at(&image, i);
        int64_t extent;
        number("weight ", i);
        number(" id ", weight.id);
        number(" ", weight.dtype);
        number(" ", (int64_t)weight.byte_size);
        for (d = 0; d < weight.rank && dg_image_weight_size(&image, i, d, &extent); d++) number(" ", extent);
        word("\n");
    }
    for (i = 0; i < dg_image_value_count(&image); i++) value(&image, i);
    for (i = 0; i < dg_image_input_count(&image); i++) index_of("input ", dg_image_input(&image, i));
    word("\n");
    for (i = 0; i < dg_image_output_count(&image); i++) index_of("output ", dg_image_output(&image, i));
    word("\n");
    for (i = 0; i < dg_image_node_count(&image); i++) node(&image, i);
    return DG_OK;
}

/* A generator that gives the same numbers everywhere. */
static uint32_t draw(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static long damage(const uint8_t *bytes, uint64_t size, long times) {
    static const uint32_t odd[] = {0, 1, 7, 16, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};
    uint64_t state = 1;
    long i, opened = 0;
    for (i = 0; i < times; i++) {
        /* A third of the copies is cut short or grown; their header then says so, to get past the first check. */
        uint64_t length = i % 3 ? size : draw(&state) % (size + 8);
        uint8_t *copy = (uint8_t *)malloc(length ? (size_t)length : 1);
        uint32_t changes = draw(&state) % 4 + 1, c;
        if (!copy) abort();
        memset(copy, 0x5a, (size_t)length);
        memcpy(copy, bytes, (size_t)(length < size ? length : size));
        for (c = 0; c < changes && length >= 4; c++) {
            /* The header and the directory matter most. */
            uint64_t reach = draw(&state) % 2 && length > 400 ? 400 : length;
            uint32_t at = draw(&state) % (uint32_t)(reach - 3), what = odd[draw(&state) % 8];
            if (draw(&state) % 2) copy[at] = (uint8_t)draw(&state);
            else memcpy(copy + at / 4 * 4, &what, sizeof what);
        }
        if (length >= 48) {
            for (c = 0; c < 8; c++) copy[24 + c] = (uint8_t)(length >> 8 * c);
            memcpy(copy, "DGG1\0\0", 6);
        }
        opened += list(copy, length) == DG_OK;
        free(copy);
    }
    return opened;
}

int main(int count, char **arguments) {
    const char *path = arguments[count - 1];
    FILE *file = fopen(path, "rb");
    uint8_t *bytes;
    long size;
    dg_status status;
    if (count < 2 || !file || fseek(file, 0, SEEK_END) || (size = ftell(file)) < 0) return 3;
    rewind(file);
    bytes = (uint8_t *)malloc((size_t)size + 1);
    if (!bytes || fread(bytes, 1, (size_t)size, file) != (size_t)size) return 3;
    fclose(file);
    if (count == 4) {
        printf("%ld opened\n", damage(bytes, (uint64_t)size, atol(arguments[2])));
        free(bytes);
        return 0;
    }
    out = stdout;
    status = list(bytes, (uint64_t)size);
    free(bytes);
    if (status != DG_OK) fprintf(stderr, "status %d\n", (int)status);
    return status == DG_OK ? 0 : 1;
}
