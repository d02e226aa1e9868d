# others
