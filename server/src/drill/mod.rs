mod canaries;
mod data;
mod model;
