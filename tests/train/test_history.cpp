// What a training recorded, read back from a log.
#include <doctest/doctest.h>
#include <ebb/graph/error.h>
#include <ebb/models/train/history.h>

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "temp_dir.h"

using namespace ebb;

TEST_CASE("history: read back from a CSV log") {
  const TempDir dir;
  const auto file = dir / "log.csv";
  const auto read = [&](const std::string& text) {
    std::ofstream(file, std::ios::binary) << text;
    return load_history_csv(file);
  };
  const History h = read("epoch,loss,val_loss\r\n0,0.5,NA\r\n1,0.25,1e-3\r\n");
  CHECK(h.epochs() == 2);
  CHECK(h["loss"] == std::vector<double>{.5, .25});
  CHECK(std::isnan(h["val_loss"][0]));
  CHECK(h["val_loss"][1] == 1e-3);
  CHECK(read("epoch,loss\n").epochs() == 0);
  const auto message = [&](const std::string& text) -> std::string {
    try {
      read(text);
    } catch (const DataError& e) {
      return std::string(e.what()).substr(file.string().size());
    }
    return "none";
  };
  CHECK(message("") == ": is empty; expected names: epoch,...");
  CHECK(message("loss\n1\n") == ": line 1: expected names: epoch,...");
  CHECK(message("epoch,a,a\n") == ": line 1: duplicate name \"a\"");
  CHECK(message("epoch,a,epoch\n") == ": line 1: duplicate name \"epoch\"");
  CHECK(message("epoch,a\n0,1\n1\n") == ": line 3: expected 2 numbers, found 1");
  CHECK(message("epoch,a\n0,1x\n") == ": line 2: \"1x\" is not a number");
  CHECK_THROWS_WITH_AS(load_history_csv(dir / "no"),
                       ((dir / "no").string() + ": cannot read: No such file or directory").c_str(), IoError);
}

TEST_CASE("history: names and numbers in quotes, as spreadsheets write them") {
  const TempDir dir;
  std::ofstream(dir / "log") << "\"epoch\",\"loss\"\r\n\"0\",\"0.5\"\r\n1,0.25\r\n";
  CHECK(load_history_csv(dir / "log")["loss"] == std::vector<double>{0.5, 0.25});
  std::ofstream(dir / "names") << "epoch,\"a, b\",\"say \"\"c\"\"\"\n0,1,2\n";  // as CSVLogger writes them
  CHECK(load_history_csv(dir / "names")["a, b"] == std::vector<double>{1});
  CHECK(load_history_csv(dir / "names")["say \"c\""] == std::vector<double>{2});
  const auto says = [&](const char* text) {
    std::ofstream(dir / "bad") << text;
    CHECK_THROWS_WITH_AS(load_history_csv(dir / "bad"), doctest::Contains("line 2: expected"), DataError);
  };
  says("epoch,loss\n0,\"1\n");
  says("epoch,loss\n0,1\"\n");
  says("epoch,loss\n0,\"1\"2\n");
}
