#ifndef EXAMPLE_MATRIX_HPP
#define EXAMPLE_MATRIX_HPP

#include <stdexcept>
#include <vector>

namespace example {
namespace dense {

/// A matrix of fixed shape, stored row by row.
template <typename T>
class Matrix final {
 public:
  Matrix(std::size_t rows, std::size_t columns) : rows_(rows), columns_(columns), cells_(rows * columns) {}
  ~Matrix() = default;

  T& operator()(std::size_t row, std::size_t column);
  std::size_t rows() const noexcept { return rows_; }
  std::size_t columns() const noexcept { return columns_; }
  Matrix<T> times(const Matrix<T>& other) const;
  template <typename F>
  void each(F&& visit) {
    for (auto& cell : cells_) visit(cell);
  }

 private:
  std::size_t rows_, columns_;
  std::vector<T> cells_;
};

/// The cell at a place; throws std::out_of_range instead of reading past the end of the storage.
template <typename T>
T& Matrix<T>::operator()(std::size_t row, std::size_t column) {
  if (row >= rows_ || column >= columns_) {
    throw std::out_of_range("no such cell");
  }
  return cells_[row * columns_ + column];
}

// The inner loop runs along a row of both, which is what a cache likes.
template <typename T>
Matrix<T> Matrix<T>::times(const Matrix<T>& other) const {
  Matrix<T> product(rows_, other.columns_);
  for (std::size_t row = 0; row < rows_; ++row) {
    for (std::size_t inner = 0; inner < columns_; ++inner) {
      const T factor = cells_[row * columns_ + inner];
      for (std::size_t column = 0; column < other.columns_; ++column) {
        product(row, column) += factor * other.cells_[inner * other.columns_ + column];
      }
    }
  }
  return product;
}

}  // namespace dense

enum class Order { row_major, column_major };

inline bool is_square(std::size_t rows, std::size_t columns) {
  // An empty matrix counts as square: its determinant is one, and code that asks wants to divide by it.
  const bool same = rows == columns;
  const bool empty = rows == 0 || columns == 0;
  return same || empty;
}

}  // namespace example

#endif  // EXAMPLE_MATRIX_HPP
