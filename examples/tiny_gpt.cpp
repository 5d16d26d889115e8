// A GPT in 100 lines with its own training loop: a character model of short stories, out of layers, one attention call
// and nothing hidden.
#include <rapt/rapt.h>
using namespace rapt;

constexpr int64_t kContext = 48, kDim = 64, kHeads = 4, kLayers = 2, kBatch = 24;

// x + attention(norm(x)), then x + mlp(norm(x))
struct Block : Module {
  LayerNorm norm1, norm2;
  Linear qkv, proj;
  Mlp mlp;
  Block()
      : norm1(child<LayerNorm>("norm1", kDim)),
        norm2(child<LayerNorm>("norm2", kDim)),
        qkv(child<Linear>("qkv", kDim, 3 * kDim)),
        proj(child<Linear>("proj", kDim, kDim)),
        mlp(child<Mlp>("mlp", kDim, 4 * kDim)) {}

  Tensor operator()(const Tensor& x) const {
    Tensor y = x + attend(norm1(x));
    return y + mlp(norm2(y));
  }

  // x (B, N, C) → (B, N, C)
  Tensor attend(const Tensor& x) const {
    const int64_t B = x.shape[0], N = x.shape[1];
    Tensor projected = qkv(x);
    auto heads = [&](int64_t which) {  // (B, H, N, C/H)
      Tensor part = slice(projected, -1, which * kDim, (which + 1) * kDim);
      return transpose(reshape(part, {B, N, kHeads, kDim / kHeads}), 1, 2);
    };
    Tensor read = attention(heads(0), heads(1), heads(2), {.mask = causal()});
    return proj(reshape(transpose(read, 1, 2), {B, N, kDim}));
  }
};

struct TinyGpt : Module {
  Embedding tokens, positions;
  std::vector<Block> blocks;
  LayerNorm norm;
  Linear head;
  explicit TinyGpt(int64_t vocabulary)
      : tokens(child<Embedding>("tokens", vocabulary, kDim, 0.02)),
        positions(child<Embedding>("positions", kContext, kDim, 0.02)),
        norm(child<LayerNorm>("norm", kDim)),
        head(child<Linear>("head", kDim, vocabulary)) {
    for (int i = 0; i < kLayers; ++i) blocks.push_back(child<Block>(fmt::format("blocks.{}", i)));
  }

  // ids (B, N) → logits (B, N, V)
  Tensor operator()(const Tokens& ids) const {
    Tensor x = tokens(ids) + slice(positions.weight, 0, 0, ids.shape[1]);
    for (const Block& block : blocks) x = block(x);
    return head(norm(x));
  }
};

std::string write(const TinyGpt& model, const Tokenizer& tokenizer, std::string text, int64_t length) {
  EvalMode eval;
  std::vector<int32_t> ids = tokenizer.encode(text);
  for (int64_t i = 0; i < length; ++i) {
    const int64_t n = std::min<int64_t>(kContext, int64_t(ids.size()));
    Tokens last({1, n}, std::vector<int32_t>(ids.end() - n, ids.end()));
    Tensor p = softmax(select(select(model(last), 0, 0), 0, n - 1) / 0.7);
    double u = double(uniform({1}).item());
    int32_t id = 0;
    while (id + 1 < p.numel() && (u -= double(p.at({id}))) > 0) ++id;
    ids.push_back(id);
  }
  return tokenizer.decode(ids);
}

int main() {
  const std::string text = make_stories(1, 200'000).text;
  const Tokenizer tokenizer = Tokenizer::characters(text);
  const TokenStream stream(tokenizer, text);
  const TrainBatches batches{stream.span(), kBatch, kContext, 1, 1};
  manual_seed(1);
  TinyGpt model(tokenizer.vocabulary_size());
  AdamW optimizer(model.parameters(), {.learning_rate = 3e-3});
  fmt::print("{} parameters, {} characters\n", model.parameter_count(), tokenizer.vocabulary_size());

  constexpr int64_t kSteps = 350;
  const Schedule schedule{.peak = 4e-3, .warmup = 20, .steps = kSteps};
  double smooth = 0;
  for (int64_t step = 0; step < kSteps; ++step) {
    Batch batch = batches.batch(step);
    Tensor loss = cross_entropy(model(batch.x), batch.y);
    backward(loss);
    clip_gradient_norm(model.parameters(), 1);
    optimizer.set_learning_rate(learning_rate(schedule, step));
    optimizer.step();
    optimizer.zero_gradients();
    smooth = step == 0 ? double(loss.item()) : 0.9 * smooth + 0.1 * double(loss.item());
    if (step % 25 == 0 || step + 1 == kSteps) fmt::print("step {:>3}: loss {:.3f}\n", step, smooth);
  }
  fmt::print("\n{}\n", write(model, tokenizer, "\n", 200));
  return smooth < 1.3 ? 0 : 1;
}
