/* Who the delegate is, and its one exported symbol. Whatever is thrown below becomes a status for the host. */

#include "my_npu.hpp"

namespace my_npu_delegate {

class MyNpuDelegate : public dg::delegate {
public:
    /* Name, vendor and version say the same in my-npu.delegate.toml. Then the build, and the form of the blobs with its version:
     * raise it whenever an old blob would be misread. */
    static constexpr dg::info info{"my-npu", "Example Inc.", "0.1.0", "", "my-npu.steps", 1};

    MyNpuDelegate(const dg::options &options, const dg::call &) {
        /* A typing error in somebody's backends.toml must be found. */
        options.check({});
    }

    std::vector<dg::device> devices() const override { return my_npu_delegate::devices(); }

    void partition(const dg::image &graph, dg::partition &answer, const dg::call &) override {
        for (std::uint32_t node = 0; node < graph.node_count(); node++) {
            if (auto refusal = verdict(graph, node)) answer.refuse(node, refusal->reason, refusal->text);
            else answer.take(node);
        }
    }

    /* `target` is what the user asked for with `--target my-npu:NAME`; empty: anything. */
    void compile(const dg::image &graph, const dg::weights &, std::string_view, dg::blob_writer &out,
                 const dg::call &) override {
        out.begin("steps");
        out.write(my_npu_delegate::compile(graph));
    }

    std::unique_ptr<dg::session> load(const dg::blob &blob, const dg::weights &, const dg::call &) override {
        return my_npu_delegate::load(blob.section("steps"));
    }
};

} // namespace my_npu_delegate

DG_EXPORT_DELEGATE(my_npu_delegate::MyNpuDelegate);
