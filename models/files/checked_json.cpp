#include <ebb/models/files/checked_json.h>

#include <fmt/format.h>

#include <limits>
#include <set>
#include <vector>

#include <ebb/graph/error.h>
#include <ebb/graph/printable.h>

namespace ebb::detail {
namespace {

constexpr int deepest = 8;
constexpr std::size_t most_values = 1'000'000;  // of which each takes 16 bytes, and in a text at least two

}  // namespace

CheckedJson parse_json(std::string_view text) {
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  std::size_t values = 0;
  const auto check = [&](int depth, CheckedJson::parse_event_t event, CheckedJson& parsed) {
    using Event = CheckedJson::parse_event_t;
    if (depth > deepest) throw ValueError(fmt::format("JSON more than {} deep", deepest));
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(parsed.get<std::string>()).second)
      throw ValueError(fmt::format("duplicate key \"{}\"", printable(parsed.get<std::string>(), 40)));
    if (++values > 2 * most_values) throw ValueError(fmt::format("JSON of more than {} values", most_values));
    return true;
  };
  try {
    return CheckedJson::parse(text, check);
  } catch (const CheckedJson::parse_error& e) {
    throw ValueError(fmt::format("not valid JSON: byte {}", e.byte));
  } catch (const CheckedJson::exception& e) {  // a number beyond double
    throw ValueError(fmt::format("not valid JSON: {}", printable(e.what(), 120)));
  }
}

void expected(std::string_view name, std::string_view what, const CheckedJson& found) {
  throw ValueError(fmt::format("{}: expected {}, found {}", printable(name, 40), what,
                               found.is_structured()
                                   ? std::string(found.type_name())
                                   : printable(found.dump(-1, ' ', false, CheckedJson::error_handler_t::replace), 40)));
}

const CheckedJson& member(const CheckedJson& object, const char* name) {
  if (!object.is_object()) expected(name, "to be in an object", object);
  const auto it = object.find(name);
  if (it == object.end()) throw ValueError(fmt::format("{} is missing", name));
  return *it;
}

std::int64_t whole(const CheckedJson& object, const char* name) {
  constexpr std::int64_t most = std::int64_t{1} << 53;
  const CheckedJson& j = member(object, name);
  if (!j.is_number_integer() ||
      (j.is_number_unsigned() ? j.get<std::uint64_t>() > static_cast<std::uint64_t>(most) : j.get<std::int64_t>() < 0))
    expected(name, fmt::format("a whole number from 0 to {}", most), j);
  return j.get<std::int64_t>();
}

bool flag(const CheckedJson& object, const char* name) {
  const CheckedJson& j = member(object, name);
  if (!j.is_boolean()) expected(name, "true or false", j);
  return j.get<bool>();
}

std::string text(const CheckedJson& object, const char* name) {
  const CheckedJson& j = member(object, name);
  if (!j.is_string()) expected(name, "a text", j);
  return j.get<std::string>();
}

const CheckedJson& list(const CheckedJson& object, const char* name) {
  const CheckedJson& j = member(object, name);
  if (!j.is_array()) expected(name, "a list", j);
  return j;
}

const CheckedJson& object_of(const CheckedJson& object, const char* name) {
  const CheckedJson& j = member(object, name);
  if (!j.is_object()) expected(name, "an object", j);
  return j;
}

double number(const CheckedJson& value, std::string_view name) {
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (value == "inf") return std::numeric_limits<double>::infinity();
  if (value == "-inf") return -std::numeric_limits<double>::infinity();
  if (!value.is_number()) expected(name, "a number", value);
  return value.get<double>();
}

}  // namespace ebb::detail
