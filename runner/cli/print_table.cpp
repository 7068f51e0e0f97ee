#include "runner/cli/print_table.h"

#include <cstdlib>
#include <string_view>

#include "results/render.h"
#include "results/table.h"
#include "results/table_query.h"
#include "sweeps/workspace.h"

namespace ablate {
namespace {

/// Whether the locale was set to something without UTF-8. An unset one says nothing about the
/// terminal, and terminals speak UTF-8.
bool wants_ascii() {
  for (const char* variable : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(variable);
    if (value == nullptr || *value == '\0') continue;
    const std::string_view text = value;
    return text.find("UTF-8") == std::string_view::npos &&
           text.find("utf8") == std::string_view::npos;
  }
  return false;
}

std::string render(const RenderedTable& table, const std::string& format, TerminalStyle style) {
  if (format == "markdown") return render_markdown(table);
  if (format == "latex") return render_latex(table);
  if (format == "csv") return render_csv(table);
  TerminalOptions options;
  options.width = style.redraw ? static_cast<std::size_t>(style.width) : 0;
  options.colour = style.color;
  options.ascii = wants_ascii();
  return render_terminal(table, options);
}

}  // namespace

const std::vector<std::string>& table_formats() {
  static const std::vector<std::string> formats = {"terminal", "markdown", "latex", "csv"};
  return formats;
}

std::vector<Publication> known_publications(const std::filesystem::path& sweep_file) {
  std::vector<std::filesystem::path> folders = {program_folder() / "../share/ablate/references"};
  if (!sweep_file.empty()) {
    folders.insert(folders.begin(),
                   std::filesystem::absolute(sweep_file).parent_path() / "references");
  }
  return read_publications(folders);
}

void print_table(ResultStore& store, const TableRequest& request, TerminalStyle style,
                 std::ostream& out) {
  const TableSpec spec = parse_table_spec(request.layout);
  std::vector<Publication> publications;
  if (!spec.references.empty()) {
    publications = find_publications(spec.references, known_publications(request.file), &store);
  }
  const TableData data = query_table(store, request.sweep, spec, request.title, publications);
  out << render(build_table(spec, data), request.format, style) << std::flush;
}

}  // namespace ablate
