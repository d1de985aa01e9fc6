// Digits as text: a line for each, the label and 784 pixels separated by commas.
#pragma once
#include <filesystem>

#include <ebb/models/data/mnist.h>

namespace ebb {

/// Reads a table with a header, the label (0 to 9) in the first column and the 784 pixels (0 to 255, row by row) in the
/// others: plain, .gz, or a .zip with one file (the content decides, not the name). Cells may be in quotes (RFC 4180),
/// lines may end in CR LF, the last one with the data, and empty lines may follow it. Strict in all else: a missing
/// header, another number of columns, anything but digits in a cell are a DataError "FILE: line 3, column 17: what was
/// expected and found". A label column elsewhere is recognized by its name and refused. What is cut short between two
/// rows, or within the digits of the last number, is a table too: only a packed file tells.
Digits load_digits_csv(const std::filesystem::path& path);

/// Writes such a table with the header label,pixel0,...,pixel783; as gzip when the name ends in ".gz". The file appears
/// complete or not at all. Throws ShapeError or DTypeError on anything but 28 x 28 uint8 images with their labels.
void save_digits_csv(const std::filesystem::path& path, const Digits& digits);

}  // namespace ebb
