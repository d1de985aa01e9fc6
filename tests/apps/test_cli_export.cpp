// mnist export.
#include <doctest/doctest.h>

#ifndef EBB_MNIST_PROGRAM
TEST_CASE("mnist export") { MESSAGE("skipped: the build has no program mnist"); }
#else

#include <ebb/models/files/numpy.h>
#include <ebb/models/files/safetensors.h>

#include <nlohmann/json.hpp>

#include "run_mnist.h"

using namespace cli;

namespace {

std::string bytes_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A saved network.
std::string saved(Mnist& mnist) {
  const std::string file = (mnist.files() / "net.safetensors").string();
  const Result r = mnist({"train", "--data", mnist.digits(), "--epochs", "1", "--arch",
                          "conv 2 3 relu, pool 4, flatten, dense 10", "--save", file, "--quiet"});
  CAPTURE(r);
  REQUIRE(r.code == 0);
  return file;
}

}  // namespace

TEST_CASE("mnist export: every format and layout") {
  Mnist mnist;
  const std::string net = saved(mnist);
  const auto at = [&](const char* name) { return (mnist.files() / name).string(); };
  const Result r = mnist({"export", net, "--onnx", at("a.onnx"), "--npz", at("a.npz"), "--safetensors", at("a.st")});
  CAPTURE(r);
  CHECK(r.code == 0);
  CHECK(r.err == "");
  REQUIRE(lines(r.out).size() == 4);
  CHECK(lines(r.out)[0].starts_with(at("a.onnx") + ": ONNX opset 13, "));
  CHECK(lines(r.out)[1].starts_with(at("a.npz") + ": 4 tensors, layout ebb, "));
  CHECK(lines(r.out)[3] == "input: pixels times 0.00392157, (N, 28, 28, 1)");
  CHECK(contains(bytes_of(at("a.onnx")), "layers.0.weight"));
  const auto own = ebb::read_safetensors(net).tensors;
  const auto npz = ebb::read_npz(at("a.npz"));
  CHECK(ebb::same_bits(npz.at("layers.0.weight"), own.at("layers.0.weight")));
  CHECK(ebb::same_bits(ebb::read_safetensors(at("a.st")).tensors.at("layers.3.bias"), own.at("layers.3.bias")));

  const Result torch =
      mnist({"export", net, "--safetensors", at("t.st"), "--npz", at("t.npz"), "--layout", "torch", "--json"});
  CAPTURE(torch);
  REQUIRE(torch.code == 0);
  const auto told = nlohmann::json::parse(torch.out);
  CHECK(told.at("layout") == "torch");
  CHECK(told.at("scale").get<double>() == doctest::Approx(1.0 / 255));
  CHECK(told.at("files").size() == 2);
  CHECK(told.at("files")[1].at("bytes") == fs::file_size(at("t.st")));
  CHECK(ebb::read_safetensors(at("t.st")).tensors.at("0.weight").shape() == ebb::Shape{2, 1, 3, 3});
  CHECK(ebb::read_safetensors(at("t.st")).metadata.contains("architecture"));
  CHECK(ebb::read_npz(at("t.npz")).contains("4.weight"));
  CHECK(mnist({"export", net, "--safetensors", at("k.st"), "--layout", "keras"}).code == 0);
  CHECK(ebb::read_safetensors(at("k.st")).tensors.at("conv2d/kernel").shape() == ebb::Shape{3, 3, 1, 2});
}

TEST_CASE("mnist export: files that exist are kept unless --force is given") {
  Mnist mnist;
  const std::string net = saved(mnist), out = (mnist.files() / "a.onnx").string();
  std::ofstream(out) << "mine";
  check_failure(mnist({"export", net, "--onnx", out}),
                out + ": exists already; choose another name, or --force to overwrite it");
  CHECK(bytes_of(out) == "mine");
  CHECK(mnist({"export", net, "--onnx", out, "--force"}).code == 0);
  CHECK(bytes_of(out).size() > 1000);
  check_failure(mnist({"export", net, "--onnx", "/nonexistent/a.onnx"}),
                "/nonexistent/a.onnx: cannot write: No such directory");
  const std::string before = bytes_of(net);
  check_usage_error(mnist({"export", net, "--safetensors", net, "--force"}),
                    "the file read and --safetensors are the same file: " + net);
  CHECK(bytes_of(net) == before);
}

TEST_CASE("mnist export: usage errors") {
  Mnist mnist;
  const std::string net = saved(mnist);
  check_usage_error(mnist({"export", "--onnx", "a"}), "which model? Give the file that mnist train --save wrote");
  check_usage_error(mnist({"export", net}), "export as what? Give --onnx, --npz or --safetensors and a file to write");
  check_usage_error(mnist({"export", net, "--npz", "a", "--layout", "jax"}),
                    "unknown layout \"jax\"; expected one of ebb, torch, keras");
  check_usage_error(mnist({"export", net, "--onnx", "a", "--layout", "torch"}),
                    "--layout is for --npz and --safetensors");
  check_usage_error(mnist({"export", net, "--onnx", "a", "--npz", "a"}), "--onnx and --npz are the same file: a");
  check_usage_error(mnist({"export", net, "--onx", "a"}), "did you mean --onnx?");
  check_failure(mnist({"export", "/nonexistent/a", "--onnx", "a"}),
                "/nonexistent/a: cannot read: No such file or directory");
}
#endif
