/* SPDX-License-Identifier: Apache-2.0 OR MIT */

/* Write a delegate in C++17: header only, over delegraph.h.
 *
 *     class MyDelegate : public dg::delegate {
 *     public:
 *         static constexpr dg::info info{"acme", "Acme", "0.1.0", "", "acme.steps", 1};
 *         MyDelegate(const dg::options &options, const dg::call &) { options.check({}); }
 *         std::vector<dg::device> devices() const override;
 *         void partition(const dg::image &graph, dg::partition &answer, const dg::call &) override;
 *         void compile(const dg::image &graph, const dg::weights &, std::string_view target, dg::blob_writer &out, const dg::call &) override;
 *         std::unique_ptr<dg::session> load(const dg::blob &blob, const dg::weights &, const dg::call &) override;
 *     };
 *     DG_EXPORT_DELEGATE(MyDelegate)
 *
 * - Every function of the table is a wrapper that catches. `dg::error` becomes its status, with node, hint and message;
 *   `std::bad_alloc` DG_E_OUT_OF_MEMORY; whatever else is thrown DG_E_INTERNAL with its message. Nothing unwinds over the border.
 * - A delegate may be called from several threads at once, a session by one at a time: see delegraph.h.
 * - Views (`dg::span`, `std::string_view`, `dg::image`, `dg::blob`, tensors) are valid for the call that they are given to.
 * - It uses functions of the first minor of the ABI only, so that what it makes runs on every host of this major version.
 */

#ifndef DELEGRAPH_HPP
#define DELEGRAPH_HPP

#include "delegraph.h"
#include "delegraph_image.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace dg {

/* ----------------------------------------------------------------------------------------------------------------- basics */

/* A run of items that somebody else owns. */
template <class T> class span {
public:
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class C, class = decltype(static_cast<T *>(std::declval<C &>().data()))>
    constexpr span(C &container) noexcept : data_(container.data()), size_(container.size()) {}
    /* Of a container that is about to go, for the length of a call. */
    template <class C, class P = decltype(std::declval<const C &>().data()),
              class = std::enable_if_t<std::is_const_v<T> && std::is_convertible_v<P, T *>>>
    constexpr span(const C &container) noexcept : data_(container.data()), size_(container.size()) {}
    template <class U, class = std::enable_if_t<std::is_convertible_v<U (*)[], T (*)[]>>>
    constexpr span(const span<U> &other) noexcept : data_(other.data()), size_(other.size()) {}
    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/* Text of the ABI; empty for NULL. */
inline std::string_view text(const char *data, std::uint64_t size) noexcept {
    return data ? std::string_view(data, static_cast<std::size_t>(size)) : std::string_view();
}
inline std::string_view text(dg_text t) noexcept { return text(t.data, t.size); }

/* Why a call fails: a status, what happened, and where it is known the node and what to try. */
class error : public std::exception {
public:
    error(dg_status status, std::string message) : status_(status), message_(std::move(message)) {}
    /* The node of the graph image that it is about: the host tags again without it. */
    error &&at(std::uint32_t node) && noexcept { return node_ = node, std::move(*this); }
    /* What to try. */
    error &&hint(std::string text) && { return hint_ = std::move(text), std::move(*this); }
    /* The vendor's own number. */
    error &&vendor_code(std::int64_t code) && noexcept { return vendor_code_ = code, std::move(*this); }

    /* Valid, but this delegate does not do it. */
    static error unsupported(std::string message) { return {DG_E_UNSUPPORTED, std::move(message)}; }
    /* What the caller gave is wrong. */
    static error invalid(std::string message) { return {DG_E_INVALID_ARGUMENT, std::move(message)}; }
    /* The blob is damaged. */
    static error corrupt(std::string message) { return {DG_E_BLOB_CORRUPT, std::move(message)}; }
    /* A mistake of the delegate's own. */
    static error internal(std::string message) { return {DG_E_INTERNAL, std::move(message)}; }

    dg_status status() const noexcept { return status_; }
    std::uint32_t node() const noexcept { return node_; }
    std::int64_t vendor_code() const noexcept { return vendor_code_; }
    const std::string &message() const noexcept { return message_; }
    const std::string &hint() const noexcept { return hint_; }
    const char *what() const noexcept override { return message_.c_str(); }

private:
    dg_status status_;
    std::uint32_t node_ = DG_NO_NODE;
    std::int64_t vendor_code_ = 0;
    std::string message_, hint_;
};

/* Throws what a host function refused. */
inline void check(dg_status status, const char *function) {
    if (status != DG_OK) throw error(status, std::string("the host refused `") + function + "`");
}

/* The running call. */
class call {
public:
    explicit call(const dg_call *raw) noexcept : raw_(raw) {}
    const dg_call *raw() const noexcept { return raw_; }
    const dg_host_api &host() const noexcept { return *raw_->host; }
    /* The caller wants no result any more: return soon, with DG_E_CANCELLED. */
    bool is_cancelled() const noexcept { return host().call_is_cancelled(raw_) != 0; }
    /* Writes a line to the host's log. */
    void log(dg_log_level level, std::string_view line) const noexcept {
        host().log_emit(raw_, level, line.data(), line.size());
    }
    /* How many threads `parallel_for` uses at once, the calling one included. */
    std::uint32_t threads() const noexcept { return host().parallel_threads(raw_); }
    /* Calls `body(index)` for each index below `count`, on the host's threads and this one. Use this in place of threads of
     * your own. The first exception of a body is thrown here when all parts have ended. */
    template <class F> void parallel_for(std::uint64_t count, F &&body) const {
        struct shared {
            std::remove_reference_t<F> *body;
            std::mutex lock;
            std::exception_ptr first;
        } state{&body, {}, nullptr};
        auto part = [](void *context, std::uint64_t index) {
            auto *all = static_cast<shared *>(context);
            try {
                (*all->body)(index);
            } catch (...) {
                try {
                    std::lock_guard<std::mutex> guard(all->lock);
                    if (!all->first) all->first = std::current_exception();
                } catch (...) {
                }
            }
        };
        check(host().parallel_for(raw_, count, part, &state), "parallel_for");
        if (state.first) std::rethrow_exception(state.first);
    }

private:
    const dg_call *raw_;
};

/* ------------------------------------------------------------------------------------------------- what the host hands over */

/* The user's options for this delegate. */
class options {
public:
    using value = std::variant<bool, std::int64_t, double, std::string_view>;
    explicit options(const dg_init &init) {
        for (std::uint64_t i = 0; i < init.option_count; i++) {
            const dg_kv &kv = *init.options[i];
            std::string_view key = text(kv.key, kv.key_size);
            switch (kv.type) {
            case DG_KV_BOOL: entries_.emplace_back(key, kv.int_value != 0); break;
            case DG_KV_INT: entries_.emplace_back(key, kv.int_value); break;
            case DG_KV_FLOAT: entries_.emplace_back(key, kv.float_value); break;
            case DG_KV_STR: entries_.emplace_back(key, text(kv.str_value, kv.str_value_size)); break;
            default: throw error::invalid("option `" + std::string(key) + "` is of an unknown type");
            }
        }
    }
    const std::vector<std::pair<std::string_view, value>> &entries() const noexcept { return entries_; }
    /* The value of an option; a T of another type is an error. */
    template <class T> std::optional<T> find(std::string_view key) const {
        for (const auto &entry : entries_) {
            if (entry.first != key) continue;
            if (const T *found = std::get_if<T>(&entry.second)) return *found;
            throw error::invalid("option `" + std::string(key) + "` is of another type");
        }
        return std::nullopt;
    }
    /* Refuses options of other names. */
    void check(std::initializer_list<std::string_view> known) const {
        for (const auto &entry : entries_) {
            bool found = false;
            std::string list;
            for (std::string_view name : known) {
                found = found || name == entry.first;
                list += (list.empty() ? "`" : ", `") + std::string(name) + "`";
            }
            if (!found)
                throw error::invalid("unknown option `" + std::string(entry.first) + "`")
                    .hint(list.empty() ? "this delegate has no options" : "the options are " + list);
        }
    }

private:
    std::vector<std::pair<std::string_view, value>> entries_;
};

/* Weights by the id that the graph image gives them. */
class weights {
public:
    weights(const dg_host_api *host, const dg_weights *raw) noexcept : host_(host), raw_(raw) {}
    /* Contiguous, row-major, aligned to nothing in particular. Valid for the call, or as long as they are kept. */
    span<const std::uint8_t> bytes(std::uint32_t id) const {
        const std::uint8_t *data = nullptr;
        std::uint64_t size = 0;
        dg_status status = host_->weight_map(raw_, id, &data, &size);
        if (status != DG_OK) throw error(status, "there is no weight " + std::to_string(id));
        return {data, static_cast<std::size_t>(size)};
    }
    const dg_host_api *host() const noexcept { return host_; }
    const dg_weights *raw() const noexcept { return raw_; }

private:
    const dg_host_api *host_;
    const dg_weights *raw_;
};

/* Weights that a session keeps beyond `load`. The host grants it in `load` only. */
class kept_weights {
public:
    explicit kept_weights(const weights &from) : weights_(from) {
        check(from.host()->weight_retain(from.raw()), "weight_retain");
    }
    ~kept_weights() {
        if (weights_.raw()) weights_.host()->weight_release(weights_.raw());
    }
    kept_weights(kept_weights &&other) noexcept : weights_(std::exchange(other.weights_, weights(nullptr, nullptr))) {}
    kept_weights &operator=(kept_weights &&) = delete;
    span<const std::uint8_t> bytes(std::uint32_t id) const { return weights_.bytes(id); }

private:
    weights weights_;
};

/* What the envelope says of a blob. */
class blob_meta {
public:
    explicit blob_meta(const dg_blob_meta &raw) noexcept : raw_(&raw) {}
    const dg_blob_meta &raw() const noexcept { return *raw_; }
    std::string_view delegate() const noexcept { return text(raw_->delegate, raw_->delegate_size); }
    std::string_view delegate_version() const noexcept { return text(raw_->delegate_version, raw_->delegate_version_size); }
    std::string_view format() const noexcept { return text(raw_->format, raw_->format_size); }
    std::uint32_t format_version() const noexcept { return raw_->format_version; }
    std::string_view target() const noexcept { return text(raw_->target, raw_->target_size); }
    std::string_view precision() const noexcept { return text(raw_->precision, raw_->precision_size); }

private:
    const dg_blob_meta *raw_;
};

/* A blob that is to be loaded. The host has checked its hashes, not its meaning. */
class blob {
public:
    explicit blob(const dg_blob &raw, const dg_host_api *host = nullptr) noexcept : raw_(&raw), host_(host) {}
    const dg_blob &raw() const noexcept { return *raw_; }
    const dg_host_api *host() const noexcept { return host_; }
    blob_meta meta() const noexcept { return blob_meta(*raw_->meta); }
    std::size_t section_count() const noexcept { return static_cast<std::size_t>(raw_->section_count); }
    /* The content of a section. */
    span<const std::uint8_t> section(std::string_view name) const {
        for (std::uint64_t i = 0; i < raw_->section_count; i++) {
            const dg_section &section = *raw_->sections[i];
            if (text(section.name, section.name_size) == name) return {section.data, static_cast<std::size_t>(section.size)};
        }
        throw error::corrupt("the blob has no section `" + std::string(name) + "`");
    }

private:
    const dg_blob *raw_;
    const dg_host_api *host_;
};

/* The bytes of a blob's sections, kept beyond `load` where they lie: what `blob::section` gave there stays valid as long as this lives. Destroyed on any
 * thread, before the delegate is. DG_E_UNSUPPORTED, and on every host before 1.1: copy what is needed instead. */
class kept_blob {
public:
    explicit kept_blob(const blob &from) : host_(from.host()), owner_(nullptr) {
        const dg_blob &raw = from.raw();
        const bool can = host_ && DG_HAS(dg_host_api, host_, blob_retain) && DG_HAS(dg_host_api, host_, blob_release) &&
                         DG_HAS(dg_blob, &raw, owner) && raw.owner;
        if (!can) throw error(DG_E_UNSUPPORTED, "the host does not keep the bytes of this blob");
        check(host_->blob_retain(raw.owner), "blob_retain");
        owner_ = raw.owner;
    }
    ~kept_blob() {
        if (owner_) host_->blob_release(owner_);
    }
    kept_blob(kept_blob &&other) noexcept : host_(other.host_), owner_(std::exchange(other.owner_, nullptr)) {}
    kept_blob &operator=(kept_blob &&) = delete;

private:
    const dg_host_api *host_;
    const dg_blob_owner *owner_;
};

/* A tensor that a session reads: contiguous, row-major. */
class tensor_in {
public:
    explicit tensor_in(const dg_tensor *raw) noexcept : raw_(raw) {}
    dg_dtype dtype() const noexcept { return raw_->dtype; }
    span<const std::int64_t> sizes() const noexcept { return {raw_->sizes, raw_->rank}; }
    span<const std::uint8_t> bytes() const noexcept {
        return {static_cast<const std::uint8_t *>(raw_->data), static_cast<std::size_t>(raw_->data_size)};
    }
    /* The elements as numbers of this width (uint16_t for f16 and bf16, uint8_t for bool). */
    template <class T> span<const T> elements() const {
        if (dg_dtype_size(raw_->dtype) != sizeof(T)) throw error::invalid("elements of another size");
        return {static_cast<const T *>(raw_->data), static_cast<std::size_t>(raw_->data_size) / sizeof(T)};
    }

private:
    const dg_tensor *raw_;
};

/* A tensor that a session writes: contiguous, row-major. */
class tensor_out {
public:
    explicit tensor_out(dg_tensor *raw) noexcept : raw_(raw) {}
    dg_dtype dtype() const noexcept { return raw_->dtype; }
    /* The largest that the room holds, until `set_sizes`. */
    span<const std::int64_t> sizes() const noexcept { return {raw_->sizes, raw_->rank}; }
    span<std::uint8_t> bytes() const noexcept {
        return {static_cast<std::uint8_t *>(raw_->data), static_cast<std::size_t>(raw_->data_size)};
    }
    template <class T> span<T> elements() const {
        if (dg_dtype_size(raw_->dtype) != sizeof(T)) throw error::invalid("elements of another size");
        return {static_cast<T *>(raw_->data), static_cast<std::size_t>(raw_->data_size) / sizeof(T)};
    }
    /* States the actual sizes. */
    void set_sizes(span<const std::int64_t> sizes) const {
        bool fits = sizes.size() == raw_->rank;
        for (std::size_t i = 0; fits && i < sizes.size(); i++) fits = sizes[i] >= 0 && sizes[i] <= raw_->sizes[i];
        if (!fits) throw error(DG_E_SHAPE_OUT_OF_RANGE, "an output does not fit its bounds");
        for (std::size_t i = 0; i < sizes.size(); i++) raw_->sizes[i] = sizes[i];
    }

private:
    dg_tensor *raw_;
};

/* ------------------------------------------------------------------------------------------------------------- the graph */

/* A graph image; see delegraph_image.h for what the functions mean. Nodes, values and weights are indices. */
class image {
public:
    image(const std::uint8_t *bytes, std::uint64_t size) {
        dg_status status = dg_image_open(bytes, size, &raw_);
        if (status != DG_OK) throw error(status, "the graph image cannot be read");
    }
    const dg_image *raw() const noexcept { return &raw_; }
    std::string_view name() const noexcept { return text(dg_image_name(&raw_)); }
    std::uint32_t node_count() const noexcept { return dg_image_node_count(&raw_); }
    std::uint32_t value_count() const noexcept { return dg_image_value_count(&raw_); }
    std::uint32_t weight_count() const noexcept { return dg_image_weight_count(&raw_); }
    std::uint32_t input_count() const noexcept { return dg_image_input_count(&raw_); }
    std::uint32_t output_count() const noexcept { return dg_image_output_count(&raw_); }
    std::uint32_t input(std::uint32_t position) const noexcept { return dg_image_input(&raw_, position); }
    std::uint32_t output(std::uint32_t position) const noexcept { return dg_image_output(&raw_, position); }

    std::string_view op(std::uint32_t node) const noexcept { return text(dg_image_node_op(&raw_, node)); }
    std::string_view node_name(std::uint32_t node) const noexcept { return text(dg_image_node_name(&raw_, node)); }
    std::uint32_t arg_count(std::uint32_t node) const noexcept { return dg_image_node_arg_count(&raw_, node); }
    dg_image_arg arg(std::uint32_t node, std::uint32_t position) const noexcept {
        return dg_image_node_arg(&raw_, node, position);
    }
    /* The argument as a constant number. */
    std::optional<double> number(std::uint32_t node, std::uint32_t position) const noexcept {
        double value = 0;
        if (!dg_image_arg_number(arg(node, position), &value)) return std::nullopt;
        return value;
    }
    /* The argument as a list of constant integers. */
    std::optional<std::vector<std::int64_t>> ints(std::uint32_t node, std::uint32_t position) const {
        dg_image_arg list = arg(node, position);
        std::vector<std::int64_t> items;
        if (list.kind != DG_ARG_INTS) return std::nullopt;
        for (std::uint32_t i = 0; i < list.count; i++) {
            std::int64_t item = 0;
            if (!dg_image_arg_item_int(&raw_, list, i, &item)) return std::nullopt;
            items.push_back(item);
        }
        return items;
    }
    std::uint32_t output_count(std::uint32_t node) const noexcept { return dg_image_node_output_count(&raw_, node); }
    std::uint32_t output(std::uint32_t node, std::uint32_t position) const noexcept {
        return dg_image_node_output(&raw_, node, position);
    }

    std::string_view value_name(std::uint32_t value) const noexcept { return text(dg_image_value_name(&raw_, value)); }
    /* Element type of a tensor; DG_NONE if it is none. */
    dg_dtype dtype(std::uint32_t value) const noexcept { return dg_image_value_dtype(&raw_, value); }
    std::uint32_t rank(std::uint32_t value) const noexcept { return dg_image_value_rank(&raw_, value); }
    /* Sizes of a tensor, if all are constant. */
    std::optional<std::vector<std::int64_t>> sizes(std::uint32_t value) const {
        std::int64_t room[DG_MAX_RANK];
        if (!dg_image_value_sizes(&raw_, value, room)) return std::nullopt;
        return std::vector<std::int64_t>(room, room + rank(value));
    }
    bool same_sizes(std::uint32_t a, std::uint32_t b) const noexcept { return dg_image_same_sizes(&raw_, a, b) != 0; }
    /* The weight that a value is; DG_NONE if it is none. */
    std::uint32_t weight(std::uint32_t value) const noexcept { return dg_image_value_weight(&raw_, value); }
    std::optional<dg_image_quant> quant(std::uint32_t value) const noexcept {
        dg_image_quant quant;
        if (!dg_image_value_quant(&raw_, value, &quant)) return std::nullopt;
        return quant;
    }
    dg_image_weight weight_at(std::uint32_t weight) const noexcept { return dg_image_weight_at(&raw_, weight); }

private:
    dg_image raw_;
};

/* ----------------------------------------------------------------------------------------------------- what it answers with */

/* Takes the answers of one `partition`: every node needs exactly one. */
class partition {
public:
    partition(const dg_host_api &host, dg_part_sink *sink) noexcept : host_(host), sink_(sink) {}
    void take(std::uint32_t node) {
        check(host_.part_node_verdict(sink_, node, 1, DG_REASON_NONE, nullptr, 0), "part_node_verdict");
    }
    /* The reason is shown to people as it stands. */
    void refuse(std::uint32_t node, dg_reason reason, std::string_view why) {
        check(host_.part_node_verdict(sink_, node, 0, reason, why.data(), why.size()), "part_node_verdict");
    }
    /* All or none of these nodes. */
    void atomic_set(span<const std::uint32_t> nodes) {
        check(host_.part_atomic_set(sink_, nodes.data(), nodes.size()), "part_atomic_set");
    }

private:
    const dg_host_api &host_;
    dg_part_sink *sink_;
};

/* Takes the blob of one `compile`: at least one section. */
class blob_writer {
public:
    blob_writer(const dg_host_api &host, dg_blob_sink *sink) noexcept : host_(host), sink_(sink) {}
    /* A lower precision than the graph's that the blob computes in: `f16`, `int8`. */
    void precision(std::string_view name) { check(host_.blob_set_precision(sink_, name.data(), name.size()), "blob_set_precision"); }
    /* Begins a section; `align` is a power of two, at most 4096. */
    void begin(std::string_view name, std::uint32_t align = 16) {
        check(host_.blob_begin_section(sink_, name.data(), name.size(), align), "blob_begin_section");
    }
    /* Appends to the section. The host copies. */
    void write(span<const std::uint8_t> bytes) { check(host_.blob_write(sink_, bytes.data(), bytes.size()), "blob_write"); }

private:
    const dg_host_api &host_;
    dg_blob_sink *sink_;
};

/* What a delegate thinks of a blob. */
struct blob_verdict {
    dg_blob_verdict code;
    std::string reason;
};

/* What a delegate says of itself; constant. `format` names the form of its blobs. */
struct info {
    std::string_view name, vendor, version, build, format;
    std::uint32_t format_version;
};

/* A device. */
struct device {
    dg_device_kind kind = DG_DEVICE_CPU;
    std::string name, vendor, arch, driver;
    std::uint64_t memory = 0;
};

/* A loaded blob. One run at a time; may move between threads. */
class session {
public:
    virtual ~session() = default;
    /* Runs once. Number, dtype and rank of the tensors are those of the graph. State the actual sizes of every output. */
    virtual void execute(span<const tensor_in> inputs, span<tensor_out> outputs, const call &context) = 0;
};

/* A delegate. A derived class has a constructor from (const options &, const call &) and a `static constexpr dg::info info`. */
class delegate {
public:
    virtual ~delegate() = default;
    /* The devices found when it started. Ids are 0, 1, … in order. */
    virtual std::vector<device> devices() const = 0;
    /* Answers for every node whether it takes it, or why not. */
    virtual void partition(const image &graph, dg::partition &answer, const call &context) = 0;
    /* Compiles a graph, of which it took every node. An error that names a node makes the host try again without it. */
    virtual void compile(const image &graph, const weights &source, std::string_view target, blob_writer &out,
                         const call &context) = 0;
    /* Judges a blob without loading it: by names and version of its form, unless overridden. */
    virtual blob_verdict check_blob(const blob_meta &meta, const info &self) const {
        if (meta.delegate() != self.name || meta.format() != self.format)
            return {DG_BLOB_NOT_MINE, "the blob is of `" + std::string(meta.delegate()) + "`"};
        if (meta.format_version() != self.format_version)
            return {DG_BLOB_UNSUPPORTED_HERE, "version " + std::to_string(meta.format_version()) + " of the form is not " +
                                                  std::to_string(self.format_version)};
        return {DG_BLOB_OPTIMAL, {}};
    }
    /* Makes a session. The blob's bytes are valid for the call, longer by `kept_blob`; weights longer by `kept_weights`. */
    virtual std::unique_ptr<session> load(const blob &from, const weights &source, const call &context) = 0;
};

/* ---------------------------------------------------------------------------------------------------------- the C functions */

namespace detail {

inline dg_status fail(const dg_call *raw, dg_status status, std::int64_t code, std::uint32_t node, std::string_view message,
                      std::string_view hint) noexcept {
    /* An error that says that all is well would be believed. */
    if (status == DG_OK) status = DG_E_INTERNAL;
    raw->host->call_set_error(raw, status, code, node, message.data(), message.size(), hint.data(), hint.size());
    return status;
}

/* Bytes of a struct up to a field, that field included: the size that the first minor had, for its last field there. */
#define DG_DETAIL_SIZE_TO(Type, field) (offsetof(Type, field) + sizeof(Type::field))

/* A struct of the host's, which is no smaller than that of the first minor. */
template <class T> const T &sized(const T *raw, std::size_t least, const char *name) {
    if (!raw || raw->struct_size < least) throw error(DG_E_BAD_STRUCT, std::string("`") + name + "` is NULL or too small");
    return *raw;
}

/* Calls it, and turns what it throws into a status. */
template <class F> dg_status guard(const dg_call *raw, F &&body) noexcept {
    if (!raw || raw->struct_size < DG_DETAIL_SIZE_TO(dg_call, host)) return DG_E_BAD_STRUCT;
    try {
        body();
        return DG_OK;
    } catch (const error &e) {
        return fail(raw, e.status(), e.vendor_code(), e.node(), e.message(), e.hint());
    } catch (const std::bad_alloc &) {
        return fail(raw, DG_E_OUT_OF_MEMORY, 0, DG_NO_NODE, "out of memory", {});
    } catch (const std::exception &e) {
        return fail(raw, DG_E_INTERNAL, 0, DG_NO_NODE, e.what(), {});
    } catch (...) {
        return fail(raw, DG_E_INTERNAL, 0, DG_NO_NODE, "something was thrown that is no std::exception", {});
    }
}

/* What stands behind a dg_delegate. */
struct held_delegate {
    std::unique_ptr<delegate> self;
    std::vector<device> devices;
    std::vector<dg_device_info> records;
};

/* What stands behind a dg_session. */
struct held_session {
    std::unique_ptr<session> self;
    /* Kept between runs, so that a steady run allocates nothing. */
    std::vector<tensor_in> inputs;
    std::vector<tensor_out> outputs;
};

inline held_delegate &of(dg_delegate *raw) noexcept { return *reinterpret_cast<held_delegate *>(raw); }
inline held_session &of(dg_session *raw) noexcept { return *reinterpret_cast<held_session *>(raw); }

/* The functions of a delegate's table. */
template <class D> struct table {
    static_assert(std::is_base_of_v<delegate, D>, "a delegate derives from dg::delegate");

    static dg_status get_info(const dg_call *, const dg_delegate_info **out) noexcept {
        static const dg_delegate_info record = [] {
            const info &self = D::info;
            dg_delegate_info r{};
            r.struct_size = sizeof r;
            r.struct_id = DG_STRUCT_DELEGATE_INFO;
            r.name = self.name.data(), r.name_size = self.name.size();
            r.vendor = self.vendor.data(), r.vendor_size = self.vendor.size();
            r.version = self.version.data(), r.version_size = self.version.size();
            r.build = self.build.data(), r.build_size = self.build.size();
            r.opset = DG_OPSET, r.opset_size = sizeof DG_OPSET - 1;
            r.blob_format = self.format.data(), r.blob_format_size = self.format.size();
            r.blob_format_version = self.format_version;
            r.image_version = DG_IMAGE_MAJOR;
            r.abi_minor = DG_ABI_MINOR;
            r.layout_hash = DG_LAYOUT_HASH;
            return r;
        }();
        *out = &record;
        return DG_OK;
    }

    static dg_status initialize(const dg_call *raw, const dg_init *init, dg_delegate **out) noexcept {
        return guard(raw, [&] {
            sized(init, DG_DETAIL_SIZE_TO(dg_init, option_count), "dg_init");
            for (std::uint64_t i = 0; i < init->option_count; i++)
                sized(init->options[i], DG_DETAIL_SIZE_TO(dg_kv, str_value_size), "dg_kv");
            auto held = std::make_unique<held_delegate>();
            held->self = std::make_unique<D>(options(*init), call(raw));
            held->devices = held->self->devices();
            for (const device &d : held->devices) {
                dg_device_info r{};
                r.struct_size = sizeof r;
                r.struct_id = DG_STRUCT_DEVICE_INFO;
                r.id = static_cast<std::uint32_t>(held->records.size());
                r.kind = d.kind;
                r.name = d.name.data(), r.name_size = d.name.size();
                r.vendor = d.vendor.data(), r.vendor_size = d.vendor.size();
                r.arch = d.arch.data(), r.arch_size = d.arch.size();
                r.driver = d.driver.data(), r.driver_size = d.driver.size();
                r.memory = d.memory;
                held->records.push_back(r);
            }
            *out = reinterpret_cast<dg_delegate *>(held.release());
        });
    }

    static void shutdown(dg_delegate *self, const dg_call *raw) noexcept {
        guard(raw, [&] { delete &of(self); });
    }

    static dg_status device_enumerate(dg_delegate *self, const dg_call *, std::uint64_t capacity, const dg_device_info **out,
                                      std::uint64_t *count) noexcept {
        const auto &records = of(self).records;
        for (std::uint64_t i = 0; i < capacity && i < records.size(); i++) out[i] = &records[static_cast<std::size_t>(i)];
        *count = records.size();
        return DG_OK;
    }

    static dg_status partition(dg_delegate *self, const dg_call *raw, const dg_graph *graph, dg_part_sink *sink) noexcept {
        return guard(raw, [&] {
            sized(graph, DG_DETAIL_SIZE_TO(dg_graph, weights), "dg_graph");
            dg::partition answer(*raw->host, sink);
            of(self).self->partition(image(graph->image, graph->image_size), answer, call(raw));
        });
    }

    static dg_status compile(dg_delegate *self, const dg_call *raw, const dg_graph *graph, const dg_target *target,
                             dg_blob_sink *sink) noexcept {
        return guard(raw, [&] {
            sized(graph, DG_DETAIL_SIZE_TO(dg_graph, weights), "dg_graph");
            sized(target, DG_DETAIL_SIZE_TO(dg_target, name_size), "dg_target");
            blob_writer out(*raw->host, sink);
            of(self).self->compile(image(graph->image, graph->image_size), weights(raw->host, graph->weights),
                                   text(target->name, target->name_size), out, call(raw));
        });
    }

    static dg_status blob_check(dg_delegate *self, const dg_call *raw, const dg_blob_meta *meta, dg_check_sink *sink) noexcept {
        return guard(raw, [&] {
            sized(meta, DG_DETAIL_SIZE_TO(dg_blob_meta, payload_size), "dg_blob_meta");
            blob_verdict v = of(self).self->check_blob(blob_meta(*meta), D::info);
            check(raw->host->blob_set_verdict(sink, v.code, v.reason.data(), v.reason.size()), "blob_set_verdict");
        });
    }

    static dg_status session_load(dg_delegate *self, const dg_call *raw, const dg_blob *raw_blob, dg_session **out) noexcept {
        return guard(raw, [&] {
            sized(raw_blob, DG_DETAIL_SIZE_TO(dg_blob, weights), "dg_blob");
            sized(raw_blob->meta, DG_DETAIL_SIZE_TO(dg_blob_meta, payload_size), "dg_blob_meta");
            for (std::uint64_t i = 0; i < raw_blob->section_count; i++)
                sized(raw_blob->sections[i], DG_DETAIL_SIZE_TO(dg_section, size), "dg_section");
            auto held = std::make_unique<held_session>();
            held->self = of(self).self->load(blob(*raw_blob, raw->host), weights(raw->host, raw_blob->weights), call(raw));
            if (!held->self) throw error::internal("`load` gave no session");
            *out = reinterpret_cast<dg_session *>(held.release());
        });
    }

    static void session_unload(dg_session *self, const dg_call *raw) noexcept {
        guard(raw, [&] { delete &of(self); });
    }

    static dg_status session_execute(dg_session *self, const dg_call *raw, const dg_tensor *const *inputs, std::uint64_t input_count,
                                     dg_tensor *const *outputs, std::uint64_t output_count) noexcept {
        return guard(raw, [&] {
            held_session &held = of(self);
            held.inputs.clear();
            held.outputs.clear();
            for (std::uint64_t i = 0; i < input_count; i++) {
                sized(inputs[i], DG_DETAIL_SIZE_TO(dg_tensor, data_size), "dg_tensor");
                held.inputs.emplace_back(inputs[i]);
            }
            for (std::uint64_t i = 0; i < output_count; i++) {
                sized(outputs[i], DG_DETAIL_SIZE_TO(dg_tensor, data_size), "dg_tensor");
                held.outputs.emplace_back(outputs[i]);
            }
            held.self->execute({held.inputs.data(), held.inputs.size()}, {held.outputs.data(), held.outputs.size()}, call(raw));
        });
    }

    static const dg_delegate_api *get() noexcept {
        static const dg_delegate_api api = [] {
            /* What this header does not know stays NULL: absent. */
            dg_delegate_api t{};
            t.struct_size = sizeof t;
            t.major = DG_ABI_MAJOR;
            t.minor = DG_ABI_MINOR;
            t.features[0] = DG_FEATURE_COMPILE | DG_FEATURE_RUN;
            t.get_info = get_info;
            t.initialize = initialize;
            t.shutdown = shutdown;
            t.device_enumerate = device_enumerate;
            t.partition = partition;
            t.compile = compile;
            t.blob_check = blob_check;
            t.session_load = session_load;
            t.session_unload = session_unload;
            t.session_execute = session_execute;
            return t;
        }();
        return &api;
    }
};

} // namespace detail
} // namespace dg

/* Exports a delegate: the library's one symbol. Once a library, outside of any namespace. */
#define DG_EXPORT_DELEGATE(Type)                                                                                       \
    extern "C" DG_EXPORT dg_status dg_delegate_entry_v1(const dg_host_api *, const dg_delegate_api **out_table) {      \
        *out_table = ::dg::detail::table<Type>::get();                                                                 \
        return DG_OK;                                                                                                  \
    }                                                                                                                  \
    static_assert(true, "a semicolon may follow")

#endif /* DELEGRAPH_HPP */
