/* SPDX-License-Identifier: MIT */
/* A database that is open in the host: a library with files, locks and memory
 * of its own that says of itself that it must not be carried across a fork. */
#include "jobs.h"

#ifdef HAVE_SQLITE
#include <sqlite3.h>

static const struct fm_job_opts bare = {.has_keep_fds = true};
static char path[] = "/tmp/fork_map_spec_db_XXXXXX";
static sqlite3 *db;

static void run_sql(const char *sql)
{
    char *message = NULL;

    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        CHECK_STR(message, "no error");
}

static int take_row(void *ud, int n, char **values, char **names)
{
    (void)names;
    (void)snprintf(ud, 32, "%s", n > 0 && values[0] ? values[0] : "");
    return 0;
}

static const char *ask(const char *sql)
{
    static char answer[32];
    char *message = NULL;

    if (sqlite3_exec(db, sql, take_row, answer, &message) != SQLITE_OK)
        CHECK_STR(message, "no error");
    return answer;
}

static void open_database(const char *mode)
{
    char sql[64];
    int fd = mkstemp(path);

    CHECK(fd >= 0);
    (void)close(fd);
    CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
    (void)snprintf(sql, sizeof sql, "PRAGMA journal_mode = %s", mode);
    run_sql(sql);
    run_sql("CREATE TABLE numbers (n INTEGER PRIMARY KEY, text TEXT)");
}

static void close_database(void)
{
    char other[sizeof path + 8];

    CHECK_INT(sqlite3_close(db), SQLITE_OK);
    (void)unlink(path);
    (void)snprintf(other, sizeof other, "%s-wal", path);
    (void)unlink(other);
    (void)snprintf(other, sizeof other, "%s-shm", path);
    (void)unlink(other);
}

/* A closure that does not care whose handle it has: it reads, writes and
 * closes it.  What comes of that is its own affair. */
static int misuse(fm_child *child, void *ud)
{
    (void)sqlite3_exec(db, "SELECT count(*) FROM numbers", NULL, NULL, NULL);
    (void)sqlite3_exec(db, "DELETE FROM numbers", NULL, NULL, NULL);
    (void)sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    (void)sqlite3_close(db);
    return say_hello(child, ud);
}

static void insert_all(fm_engine *engine, bool within)
{
    for (int i = 0; i < 20; i++) {
        fm_future *future;
        char sql[96];

        if (within)
            run_sql("BEGIN IMMEDIATE");
        (void)snprintf(sql, sizeof sql,
                       "INSERT INTO numbers VALUES (%d, hex(randomblob(500)))",
                       i);
        run_sql(sql);
        /* Inside of the transaction, its journal open and its locks held. */
        future = spawn(engine, &bare, misuse, NULL);
        is_hello(wait_for(engine, future));
        fm_future_unref(future);
        if (within)
            run_sql("COMMIT");
    }
}

static void check_unharmed(const char *mode)
{
    fm_engine *engine = new_engine();

    open_database(mode);
    insert_all(engine, false);
    CHECK_STR(ask("SELECT count(*) FROM numbers"), "20");
    run_sql("DELETE FROM numbers");
    insert_all(engine, true);
    CHECK_STR(ask("SELECT count(*) FROM numbers"), "20");
    CHECK_STR(ask("PRAGMA integrity_check"), "ok");
    CHECK_INT(sqlite3_close(db), SQLITE_OK);
    /* The file says so as well, not only the host's cache. */
    CHECK_INT(sqlite3_open(path, &db), SQLITE_OK);
    CHECK_STR(ask("SELECT count(*) FROM numbers"), "20");
    CHECK_STR(ask("PRAGMA integrity_check"), "ok");
    close_database();
    fm_engine_free(engine);
}

TEST(an_open_database_is_unharmed_by_jobs_without_its_descriptors)
{
    check_unharmed("DELETE");
}

TEST(an_open_database_with_a_log_is_unharmed_too_when_jobs_leave_it_alone)
{
    fm_engine *engine = new_engine();

    open_database("WAL");
    for (int i = 0; i < 20; i++) {
        fm_future *future;

        run_sql("BEGIN IMMEDIATE");
        run_sql("INSERT INTO numbers (text) VALUES (hex(randomblob(500)))");
        future = spawn(engine, &bare, say_hello, NULL);
        is_hello(wait_for(engine, future));
        fm_future_unref(future);
        run_sql("COMMIT");
    }
    CHECK_STR(ask("SELECT count(*) FROM numbers"), "20");
    CHECK_STR(ask("PRAGMA integrity_check"), "ok");
    close_database();
    fm_engine_free(engine);
}
#else
TEST(an_open_database_is_unharmed_by_jobs_without_its_descriptors)
{
    (void)printf("skipped: built without SQLite\n");
}
#endif
