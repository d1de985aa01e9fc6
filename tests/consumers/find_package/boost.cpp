// An algorithm of Boost's on a graph of ebb's: the component graph.
#include <ebb/ebb.h>
#include <ebb/graph/boost_graph.h>

#include <boost/graph/topological_sort.hpp>

#include <cstdio>
#include <iterator>
#include <vector>

int main() {
  const ebb::Tensor w = ebb::variable(ebb::ones({3}), "w");
  const ebb::Tensor y = ebb::sum(ebb::square(w) * w);  // a Graph is a view: its root outlives it
  const ebb::Graph graph(y);
  std::vector<const ebb::Node*> order;
  boost::topological_sort(graph, std::back_inserter(order), boost::vertex_index_map(ebb::VertexIndexMap{&graph}));
  for (const ebb::Node* node : order) std::printf("%.*s ", static_cast<int>(node->op().size()), node->op().data());
  std::printf("\n");
  return order.size() == 4 && order.front()->is_variable() && order.back()->op() == "sum" ? 0 : 1;
}
