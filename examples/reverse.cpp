// An encoder and a decoder with cross-attention (Vaswani 2017) that learn to reverse a string.
#include <rapt/rapt.h>

#include <string>
using namespace rapt;

constexpr int64_t kLetters = 26, kStart = 26, kLength = 8, kDim = 48, kHeads = 4;

// Letters and their places: ids (B, N) → (B, N, C)
struct Places : Module {
  Embedding letters, places;
  Places()
      : letters(child<Embedding>("letters", kLetters + 1, kDim, 0.5)),
        places(child<Embedding>("places", kLength, kDim, 0.5)) {}
  Tensor operator()(const Tokens& ids) const { return letters(ids) + slice(places.weight, 0, 0, ids.shape[1]); }
};

struct Encoder : Module {
  Places places;
  LayerNorm norm1, norm2;
  MultiHeadAttention self;
  Mlp mlp;
  Encoder()
      : places(child<Places>("places")),
        norm1(child<LayerNorm>("norm1", kDim)),
        norm2(child<LayerNorm>("norm2", kDim)),
        self(child<MultiHeadAttention>("self", kDim, kHeads, MultiHeadOptions{.causal = false})),
        mlp(child<Mlp>("mlp", kDim, 2 * kDim)) {}
  Tensor operator()(const Tokens& ids) const {
    Tensor x = places(ids);
    x = x + self(norm1(x));
    return x + mlp(norm2(x));
  }
};

struct Decoder : Module {
  Places places;
  LayerNorm norm1, norm2, norm3;
  MultiHeadAttention self, cross;
  Mlp mlp;
  Linear head;
  Decoder()
      : places(child<Places>("places")),
        norm1(child<LayerNorm>("norm1", kDim)),
        norm2(child<LayerNorm>("norm2", kDim)),
        norm3(child<LayerNorm>("norm3", kDim)),
        self(child<MultiHeadAttention>("self", kDim, kHeads)),
        cross(child<MultiHeadAttention>("cross", kDim, kHeads)),
        mlp(child<Mlp>("mlp", kDim, 2 * kDim)),
        head(child<Linear>("head", kDim, kLetters)) {}
  // What is written so far and what was read → the next letter's logits at every place.
  Tensor operator()(const Tokens& written, const Tensor& read) const {
    Tensor x = places(written);
    x = x + self(norm1(x));
    x = x + cross(norm2(x), read, read).output;
    return head(x + mlp(norm3(x)));
  }
};

struct Reverser : Module {
  Encoder encoder;
  Decoder decoder;
  Reverser() : encoder(child<Encoder>("encoder")), decoder(child<Decoder>("decoder")) {}
};

Tokens random_words(int64_t count) {
  Tensor drawn = uniform({count * kLength}, 0, Real(kLetters));
  std::vector<int32_t> ids;
  for (Real v : drawn.to_vector()) ids.push_back(int32_t(v));
  return {{count, kLength}, ids};
}

Tokens reversed(const Tokens& words) {
  Tokens out = words;
  for (auto at = out.ids.begin(); at != out.ids.end(); at += kLength) std::reverse(at, at + kLength);
  return out;
}

// The same one place later, after a start sign.
Tokens shifted(const Tokens& words) {
  Tokens out = words;
  for (size_t i = 0; i < out.ids.size(); ++i) out.ids[i] = i % kLength == 0 ? int32_t(kStart) : words.ids[i - 1];
  return out;
}

// Letter by letter, each the likeliest.
Tokens answer(const Reverser& model, const Tokens& words) {
  EvalMode eval;
  const int64_t count = words.shape[0];
  const Tensor read = model.encoder(words);
  Tokens written({count, kLength}, std::vector<int32_t>(size_t(count * kLength), 0));
  for (int64_t place = 0; place < kLength; ++place) {
    const Tokens next = argmax(model.decoder(shifted(written), read), -1);
    for (int64_t b = 0; b < count; ++b)
      written.ids[size_t(b * kLength + place)] = next.ids[size_t(b * kLength + place)];
  }
  return written;
}

std::string letters(const Tokens& words, int64_t row) {
  std::string out;
  for (int64_t i = 0; i < kLength; ++i) out += char('a' + words.ids[size_t(row * kLength + i)]);
  return out;
}

int main() {
  manual_seed(1);
  Reverser model;
  AdamW optimizer(model.parameters(), {.learning_rate = 3e-3, .weight_decay = 0});
  constexpr int kSteps = 300;
  for (int step = 1; step <= kSteps; ++step) {
    const Tokens words = random_words(64), wanted = reversed(words);
    Tensor loss = cross_entropy(model.decoder(shifted(wanted), model.encoder(words)), wanted);
    backward(loss);
    optimizer.set_learning_rate(4e-3 * (1 - double(step) / (kSteps + 1)));
    optimizer.step();
    optimizer.zero_gradients();
    if (step % 100 == 0) fmt::print("step {}: loss {:.4f}\n", step, loss.item());
  }
  const Tokens words = random_words(200), made = answer(model, words), wanted = reversed(words);
  int64_t right = 0;
  for (int64_t row = 0; row < 200; ++row) {
    if (row < 4) fmt::print("{} -> {}\n", letters(words, row), letters(made, row));
    right += letters(made, row) == letters(wanted, row);
  }
  fmt::print("{} of 200 words reversed\n", right);
  return right >= 190 ? 0 : 1;
}
