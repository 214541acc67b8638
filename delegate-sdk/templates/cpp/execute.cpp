/* Blobs are loaded and run. They are judged by the names of their form, in dg::delegate::check_blob. */

#include "my_npu.hpp"

#include <algorithm>

namespace my_npu_delegate {
namespace {

struct Step {
    const Op *op;
    std::uint32_t a, b;
};

/* A tensor of a run. */
struct Slot {
    dg::span<const float> data;
    /* The input whose sizes it has. */
    std::size_t origin = 0;
    /* Room of its own, kept between runs; inputs have none. */
    std::vector<float> room;
};

class Steps : public dg::session {
public:
    /* The host has checked the blob's hash, not its meaning: whatever is there must be bounded. */
    explicit Steps(dg::span<const std::uint8_t> data) {
        if (data.size() < 12) throw dg::error::corrupt("the list of steps is cut short");
        auto word = [&](std::size_t i) { return dg_load_u32(data.data() + 4 * i); };
        std::uint64_t inputs = word(0), steps = word(1), outputs = word(2);
        if (inputs == 0 || inputs + steps > 1000000) throw dg::error::corrupt("the list of steps makes no sense");
        if (data.size() != 12 + 12 * steps + 4 * outputs) throw dg::error::corrupt("the list of steps is cut short");
        inputs_ = static_cast<std::size_t>(inputs);
        for (std::size_t i = 0; i < steps; i++) {
            Step step{op_coded(word(3 + 3 * i)), word(4 + 3 * i), word(5 + 3 * i)};
            if (!step.op || step.a >= inputs + i || step.b >= inputs + i) throw dg::error::corrupt("a step makes no sense");
            steps_.push_back(step);
        }
        for (std::size_t i = 0; i < outputs; i++) {
            outputs_.push_back(word(3 + 3 * steps_.size() + i));
            if (outputs_.back() >= inputs + steps) throw dg::error::corrupt("an output that nothing makes");
        }
        slots_.resize(inputs_ + steps_.size());
    }

    void execute(dg::span<const dg::tensor_in> inputs, dg::span<dg::tensor_out> outputs, const dg::call &) override {
        if (inputs.size() != inputs_ || outputs.size() != outputs_.size())
            throw dg::error::invalid("another number of tensors than was compiled for");
        for (std::size_t i = 0; i < inputs.size(); i++) {
            slots_[i].data = inputs[i].elements<float>();
            slots_[i].origin = i;
        }
        for (std::size_t i = 0; i < steps_.size(); i++) {
            const Step &step = steps_[i];
            const Slot &a = slots_[step.a], &b = slots_[step.b];
            Slot &made = slots_[inputs_ + i];
            if (a.data.size() != b.data.size()) throw dg::error::invalid("operands of different sizes");
            made.room.resize(a.data.size());
            /* The chip would run here. Work for several cores goes to `call.parallel_for`: make no threads of your own. */
            step.op->run(a.data, step.op->operands > 1 ? b.data : dg::span<const float>(), made.room);
            made.data = made.room;
            made.origin = a.origin;
        }
        for (std::size_t i = 0; i < outputs.size(); i++) {
            /* An output comes with its largest sizes; the actual ones are stated here. */
            const Slot &from = slots_[outputs_[i]];
            outputs[i].set_sizes(inputs[from.origin].sizes());
            dg::span<float> out = outputs[i].elements<float>();
            if (from.data.size() > out.size()) throw dg::error(DG_E_BUFFER_TOO_SMALL, "an output does not fit its room");
            std::copy(from.data.begin(), from.data.end(), out.begin());
        }
    }

private:
    std::size_t inputs_ = 0;
    std::vector<Step> steps_;
    std::vector<std::uint32_t> outputs_;
    std::vector<Slot> slots_;
};

} // namespace

std::unique_ptr<dg::session> load(dg::span<const std::uint8_t> steps) { return std::make_unique<Steps>(steps); }

} // namespace my_npu_delegate
