#pragma once

#include <span>

namespace SQLite {
class Database;
}

namespace ablate {

/// 'ABLT': how `file` and our own programs recognise a results database.
inline constexpr int kApplicationId = 1094863956;

/// Brings a database from version n-1 to n (its place in the list, from 1). Forward only; a
/// published migration never changes.
using Migration = void (*)(SQLite::Database&);
std::span<const Migration> migrations();

/// The version that this program writes: the number of migrations.
int schema_version();

/// Brings the database to schema_version(), one transaction a migration, and signs a new one.
/// Several processes may do so at once. Throws Error when the file belongs to another program or
/// to a newer version of this one.
void migrate(SQLite::Database& database);

/// The same up to an older version: for tests of migrations.
void migrate_to(SQLite::Database& database, int version);

/// Throws like migrate(), and also when the database is older: a reader must not change it.
void check_schema(SQLite::Database& database);

}  // namespace ablate
