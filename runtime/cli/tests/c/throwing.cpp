/* A delegate that throws where its option `mode` says, for a test of delegraph.hpp. It takes `aten::relu` and copies. */

#include "delegraph.hpp"

#include <new>
#include <stdexcept>

namespace {

struct not_an_exception {};

/* A type whose construction ends badly, as an allocation deep in a library would. */
[[noreturn]] void raise(std::string_view how) {
    if (how == "error") throw dg::error(DG_E_DEVICE_BUSY, "the chip is busy").at(3).hint("wait").vendor_code(-7);
    if (how == "ok") throw dg::error(DG_OK, "an error that says that all is well");
    if (how == "memory") throw std::bad_alloc();
    if (how == "standard") throw std::runtime_error("a mistake with “quotes”");
    if (how == "library") (void)std::vector<int>().at(5);
    throw not_an_exception();
}

class Copy : public dg::session {
public:
    Copy(std::string how, dg::kept_weights weights, std::uint32_t id) : how_(std::move(how)), weights_(std::move(weights)), id_(id) {}
    ~Copy() override = default;
    void execute(dg::span<const dg::tensor_in> inputs, dg::span<dg::tensor_out> outputs, const dg::call &call) override {
        if (!how_.empty() && how_ != "part") raise(how_);
        outputs[0].set_sizes(inputs[0].sizes());
        dg::span<const float> from = inputs[0].elements<float>();
        dg::span<float> to = outputs[0].elements<float>();
        float bias = 0;
        std::memcpy(&bias, weights_.bytes(id_).data(), sizeof bias);
        call.parallel_for(from.size(), [&](std::uint64_t i) {
            if (how_ == "part" && i % 2) raise("standard");
            to[static_cast<std::size_t>(i)] = from[static_cast<std::size_t>(i)] + bias;
        });
        call.log(DG_LOG_DEBUG, "copied");
    }

private:
    std::string how_;
    dg::kept_weights weights_;
    std::uint32_t id_;
};

class Throwing : public dg::delegate {
public:
    static constexpr dg::info info{"throwing", "tests", "1.0.0", "b1", "throwing.copy", 2};

    Throwing(const dg::options &options, const dg::call &) {
        options.check({"where", "how", "level"});
        where_ = std::string(options.find<std::string_view>("where").value_or(""));
        how_ = std::string(options.find<std::string_view>("how").value_or(""));
        if (options.find<std::int64_t>("level").value_or(3) != 3) throw dg::error::invalid("`level` is not 3");
        at("new");
    }
    ~Throwing() override = default;

    std::vector<dg::device> devices() const override {
        at("devices");
        dg::device device;
        device.kind = DG_DEVICE_NPU;
        device.name = "a chip";
        return {device, device};
    }

    void partition(const dg::image &graph, dg::partition &answer, const dg::call &) override {
        at("partition");
        for (std::uint32_t node = 0; node < graph.node_count(); node++) {
            if (graph.op(node) == "aten::relu") answer.take(node);
            else answer.refuse(node, DG_REASON_UNKNOWN_OP, "only relu");
            /* A second answer is refused by the host, and that is thrown. */
            if (where_ == "twice") answer.take(node);
        }
    }

    void compile(const dg::image &graph, const dg::weights &weights, std::string_view target, dg::blob_writer &out,
                 const dg::call &) override {
        at("compile");
        if (where_ == "weight") weights.bytes(99);
        out.precision("f16");
        out.begin("code");
        std::uint32_t id = graph.weight_at(0).id;
        std::string blob = std::to_string(id) + " " + std::string(target);
        out.write({reinterpret_cast<const std::uint8_t *>(blob.data()), blob.size()});
    }

    std::unique_ptr<dg::session> load(const dg::blob &blob, const dg::weights &weights, const dg::call &) override {
        at("load");
        if (where_ == "null") return nullptr;
        dg::span<const std::uint8_t> code = blob.section(where_ == "section" ? "absent" : "code");
        std::string text(code.begin(), code.end());
        return std::make_unique<Copy>(where_ == "execute" ? how_ : "", dg::kept_weights(weights),
                                      static_cast<std::uint32_t>(std::stoul(text)));
    }

    dg::blob_verdict check_blob(const dg::blob_meta &meta, const dg::info &self) const override {
        at("check");
        return delegate::check_blob(meta, self);
    }

private:
    void at(std::string_view place) const {
        if (where_ == place) raise(how_);
    }
    std::string where_, how_;
};

} // namespace

DG_EXPORT_DELEGATE(Throwing);
